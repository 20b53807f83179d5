"""From a study to records: planning, running trials on an executor, finishing, searching, and what ``dfkd check`` runs.

Nothing here decides what a number means; that is done in ``analysis``, from records alone.
"""
