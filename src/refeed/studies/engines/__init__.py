"""Engines: who performs the tasks of a plan. An engine is a function; the study does not know which one it got."""

from refeed.studies.engines.base import Engine, Event, Listener
from refeed.studies.engines.inline import Inline, inline
from refeed.studies.engines.named import build_engine
from refeed.studies.engines.process import Processes

__all__ = ["Engine", "Event", "Inline", "Listener", "Processes", "build_engine", "inline"]
