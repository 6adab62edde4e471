"""Tell what is installed, what works, and what to install for what does not.

Every engine is really tried, each in a process of its own. Exit code 0 if one works and nothing is broken, else 1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "tell what is installed and what works"

MARKS = {"ok": "ok  ", "missing": "-   ", "broken": "BAD "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON document")


def run(args: argparse.Namespace) -> int:
    from .checks import TOPICS

    checks = []
    topic = ""
    for look in TOPICS:
        for check in look():
            checks.append(check)
            if args.json:
                continue
            if check.topic != topic:
                print(f"{topic and chr(10)}{check.topic}")
                topic = check.topic
            print(f"  {MARKS[check.state]}{check.name:<26} {check.detail}", flush=True)
            if check.advice:
                print(f"      {'':<26} -> {check.advice}", flush=True)
    working = [check.name for check in checks if check.topic == "engines" and check.state == "ok"]
    broken = [check.name for check in checks if check.state == "broken"]
    if args.json:
        document = {"works": bool(working) and not broken, "broken": broken, "checks": [asdict(c) for c in checks]}
        print(json.dumps(document, indent=2))
    elif broken or not working:
        print(f"\nNot all is well: {', '.join(broken) or 'no engine works'}")
    else:
        print(f"\nReady: {', '.join(working)}")
    return 0 if working and not broken else 1
