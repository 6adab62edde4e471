"""Training of the fusion network: data, losses, the loop, and the tables. Needs the extra ``pyldfusion[train]``.

What is where, in the order in which a run meets it::

    __main__  config  presets/  precision   the command, its options
    roots  pairs  cache                     which files make a pair; read, reported, kept
    samples  crops  augment  loader         batches: of the language-driven recipe, of the supervised one
    prepare  provenance                     data of the bundled weights; what weights say of their data
    build                                   from the options to the parts of a run
    initialise  widen  prune                first weights
    optimiser  schedule  loop               the loop
    distributed  interrupt  checkpoint      many processes, Ctrl-C, the state on disk
    logs  validation                        what people see
    objective                               the seam between the loop and a loss
    language  losses  patches  entropy      LDFusion's loss
    clip  open_clip_model  prompts          its judges: CLIP,
    vgg  towers  pretrained                 and VGG-19; files of weights
    torchvision_import                      a torchvision built for another torch
    supervised  imitation  teacher          the loss of the bundled weights
    evaluate  scoring  tables  ablate       python -m trainer.evaluate, python -m trainer.ablate
    detection  labels                       python -m trainer.detection
"""
