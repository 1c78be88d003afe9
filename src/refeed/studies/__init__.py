"""Studies: a question, the grid of lineages that answers it, and running it."""

from refeed.studies.files import load_study, shipped
from refeed.studies.run import run
from refeed.studies.study import Case, Study

__all__ = ["Case", "Study", "load_study", "run", "shipped"]
