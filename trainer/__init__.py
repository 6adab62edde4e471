"""Training of the fusion network: data, losses, the loop, and the tables. Needs the extra ``pyldfusion[train]``.

Commands, each ``python -m trainer.NAME``: ``__main__`` (``python -m trainer``), ``evaluate``, ``ablate``,
``detection``, ``prepare``, ``pack``. A run in the order in which it meets things::

    config  presets/           the options
    build  loop                from the options to the parts; the loop, top to bottom
    learner                    what the loop changes: made, saved and read back as one
    objective                  the seam between the loop and a loss
    language  losses           LDFusion's loss, of pure functions
    patches  entropy  pieces   its patches, which of them count, judged piece by piece

    data/        pairs  cache                        pairs looked through, reported, kept
                 samples  crops  augment  loader     batches: of the language-driven recipe, of the supervised one
                 provenance  history                 what weights say of their data
    towers/      clip  open_clip_model  prompts      the judges: CLIP,
                 vgg  common  lean                   VGG-19; made cheap
                 pretrained  torchvision_import      files of weights; a torchvision built for another torch
    start/       initialise  widen  prune            first weights
    run/         optimiser  schedule  precision      steps
                 distributed  interrupt              many processes, Ctrl-C
                 checkpoint  resume                  the state on disk, what may differ when it goes on
                 logs  validation                    what people see
    supervised/  objective  imitation  teacher       the loss of the bundled weights
    evaluation/  scoring  tables  labels             what evaluate, ablate and detection share
"""
