"""Public data sources as labelled dialogues: one adapter a source, one command that prepares them all.

    python -m lastresort_data.cli list
    python -m lastresort_data.cli prepare all --from RAW_FOLDER --out PREPARED_FOLDER

What the labels mean is in `written/GUIDE.md`; how each source is mapped to them is in the docstring of its adapter.
"""
