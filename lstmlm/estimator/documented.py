"""Where an estimator is documented: the "?" of its HTML picture in a notebook leads there."""

DOCUMENTATION = "https://lstmlm.readthedocs.io/en/stable/"  # also in pyproject.toml


class DocumentedOnline:
    """Gives scikit-learn the address of an estimator's page."""

    _doc_link_module = "lstmlm"
    _doc_link_template = DOCUMENTATION + "api/estimator.html#lstmlm.estimator.{estimator_name}"
