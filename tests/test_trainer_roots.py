"""Which files make a pair: folders as data sets name them, and CSV manifests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")

from pyldfusion.errors import InputError  # noqa: E402
from pyldfusion.media.roots import find_roots, parse_root  # noqa: E402
from trainer.data.pairs import load_pairs, read_planes  # noqa: E402
from trainer.data.provenance import describe_data  # noqa: E402

from .trainer_pairs import reasons, seven_pairs, stems, write_pairs  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return seven_pairs(tmp_path_factory.mktemp("pairs") / "mine")


class TestRoots:
    @pytest.mark.parametrize(
        "folders",
        [
            ("ir", "vi"),
            ("IR", "VIS"),
            ("Ir", "Vis"),
            ("Infrared", "Visible"),
            ("cropinfrared", "crop_LR_visible"),
            ("thermal", "RGB"),
            ("lwir", "visible"),
            ("train/ir", "train/vi"),
            ("infrared/train", "visible/train"),
        ],
    )
    def test_the_layouts_of_data_sets(self, tmp_path, folders):
        write_pairs(tmp_path / "set", ["1", "2"], folders)
        (root,) = find_roots([tmp_path / "set"])
        assert root.label == ("train" if "train" in folders[0] else "set")
        assert [(f.name.split("/")[1], f.ir.parent, f.vis.parent) for f in root.files] == [
            (name, *(tmp_path / "set" / folder for folder in folders)) for name in ("1", "2")
        ]

    def test_of_the_parts_of_a_data_set_train_is_taken_and_the_others_named(self, tmp_path):
        for part in ("Train", "test", "val"):
            write_pairs(tmp_path / part, [part])
        (root,) = find_roots([tmp_path])
        assert [f.name for f in root.files] == ["Train/Train"]
        assert "test, val left out" in load_pairs([tmp_path]).report()

    def test_without_train_every_part_is_taken(self, tmp_path):
        for part in ("day", "night"):
            write_pairs(tmp_path / part, ["1"])
        (tmp_path / "notes").mkdir()
        assert [root.label for root in find_roots([f"{tmp_path}=3"])] == ["day", "night"]
        assert {pair.weight for pair in load_pairs([f"{tmp_path}=3"]).pairs} == {3}

    def test_names_are_one_of_their_kind(self, tmp_path):
        for name in ("x", "y", "z/y"):
            write_pairs(tmp_path / name / "train", ["1"])
        names = [pair.name for pair in load_pairs([tmp_path / name for name in ("x", "y", "z/y")]).pairs]
        assert names == ["train/1", "y-train/1", "y-train-2/1"]

    def test_words_for_the_camera_do_not_count(self, tmp_path):
        write_pairs(tmp_path, ["1_ir", "2_ir"], ["ir"])
        write_pairs(tmp_path, ["1_vis", "2_vis"], ["vis"])
        assert stems(load_pairs([tmp_path])) == ["1_vis", "2_vis"]

    def test_two_files_of_one_name_are_left_out(self, tmp_path):
        write_pairs(tmp_path, ["1", "2"])
        shutil.copy(tmp_path / "vi" / "1.png", tmp_path / "vi" / "1.bmp")
        pairs = load_pairs([tmp_path])
        assert stems(pairs) == ["2"] and "several visible files have this name" in reasons(pairs)["1"]

    def test_weights_follow_an_equals_sign_unless_that_is_the_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("plain", "odd=2"):
            Path(name).mkdir()
        assert parse_root("plain") == (Path("plain"), 1.0)
        assert parse_root("plain=2") == (Path("plain"), 2.0)
        assert parse_root("plain=0.5") == (Path("plain"), 0.5)
        assert parse_root("odd=2") == (Path("odd=2"), 1.0)
        assert parse_root("odd=2=3") == (Path("odd=2"), 3.0)
        for weight in ("0", "-1", "two", "nan", "inf", ""):
            with pytest.raises(InputError, match="no number above 0; expected such as plain=2"):
                parse_root(f"plain={weight}")
        for missing in ("none", "none=2"):
            with pytest.raises(InputError, match="none: no such folder or file"):
                parse_root(missing)

    def test_a_root_given_twice_is_an_error(self, folder):
        with pytest.raises(InputError, match="given twice; give it once, with a weight"):
            find_roots([folder, f"{folder / '..' / folder.name}=2"])

    def test_a_folder_without_pairs_is_an_error_that_says_what_is_looked_for(self, tmp_path):
        with pytest.raises(InputError, match=r"cropinfrared/crop_LR_visible.*CSV"):
            find_roots([tmp_path])
        for kind in ("ir", "vi"):
            (tmp_path / kind).mkdir()
        with pytest.raises(InputError, match="no pictures"):
            find_roots([tmp_path])
        for kind in ("ir", "vi"):
            (tmp_path / kind / f"{kind}7.png").write_bytes(b"")
        with pytest.raises(InputError, match="no infrared file has the name of a visible one"):
            find_roots([tmp_path])


class TestManifest:
    def write(self, folder: Path, text: str, name: str = "pairs.csv", encoding="utf-8") -> Path:
        (folder / name).write_text(text, encoding=encoding)
        return folder / name

    @pytest.fixture
    def files(self, tmp_path) -> Path:
        return write_pairs(tmp_path, ["1", "2_0", "2_1"], ["hot", "light/a"])

    def test_columns_and_relative_paths(self, files):
        rows = ["vis,ir,name,weight,group,terms", "light/a/1.png,hot/1.png,one,2.5,yard,CC0"]
        rows += [f"light/a/2_0.png, {files / 'hot' / '2_0.png'},,,,MIT", "", "light/a/2_1.png,hot/2_1.png"]
        path = self.write(files, "\n".join(rows), encoding="utf-8-sig")
        pairs = load_pairs([f"{path}=2"])
        found = {p.name: (p.weight, p.group) for p in pairs.pairs}
        assert found == {
            "pairs/one": (5.0, "pairs/yard"),
            "pairs/2_0": (2.0, "pairs/2"),
            "pairs/2_1": (2.0, "pairs/2"),
        }
        for pair in pairs.pairs:
            assert np.array_equal(pair.planes(), read_planes(pair.files.ir, pair.files.vis))
        described = describe_data(pairs)
        assert described["trained_on"] == "pairs: 3 pairs" and described["terms"] == "CC0; MIT; not stated"

    def test_wrong_rows_are_skipped_by_the_number_of_their_line(self, files):
        rows = ["ir,vis,weight,source", "hot/1.png,light/a/1.png,,mine", "hot/9.png,light/a/2_0.png", "hot/2_0.png,,2"]
        rows += ["", ",light/a/2_0.png", "hot/2_0.png,light/a/2_0.png,heavy", "hot/2_0.png,light/a/2_0.png,0"]
        rows += ["hot/2_1.png,light/a/1.png,1,theirs", "hot/2_1.png,light/a/2_1.png"]
        pairs = load_pairs([self.write(files, "\n".join(rows))])
        assert stems(pairs) == ["1", "2_1"] and pairs.pairs[0].files.ir.stem == "1"
        why = reasons(pairs)
        assert list(why) == ["line 3", "line 4", "line 6", "line 7", "line 8", "line 9"]
        assert "9.png: no such file; expected a path that is whole, or relative to the manifest" in why["line 3"]
        assert "no value in the column vis; expected the path" in why["line 4"] and "column ir" in why["line 6"]
        assert why["line 7"] == "the weight is 'heavy'; expected a number above 0" and "'0'" in why["line 8"]
        assert "the name 'pairs/1' is that of line 2; expected names that differ" in why["line 9"]
        report = pairs.report()
        assert "pairs: 2 pairs from" in report and ", 6 skipped" in report and "  pairs/line 4: no value" in report
        assert describe_data(pairs)["trained_on"] == "mine: 1 pairs; pairs: 1 pairs"  # not what line 9 says

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1 has no column ir nor vis; .* found nothing"),
            ("ir;vis\na;b\n", "line 1 has no column ir nor vis; .* found ir;vis"),
            ("ir,name\na,b\n", "line 1 has no column vis; .* found ir, name"),
            ("ir,vis\n", "no line after the header"),
            ("ir,vis\nc.png,\n\na.png,b.png\n", "none of its 2 rows can be used; line 2: no value in the column vis"),
        ],
    )
    def test_a_wrong_header_and_nothing_usable_are_errors(self, tmp_path, text, message):
        with pytest.raises(InputError, match=rf"pairs\.csv: {message}"):
            load_pairs([self.write(tmp_path, text)])

    def test_what_is_no_csv_is_an_error(self, folder):
        with pytest.raises(InputError, match=r"c\.png: not a CSV manifest"):
            load_pairs([folder / "ir" / "c.png"])
