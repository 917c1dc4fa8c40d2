"""Keep the old import path of `summaries`; the engine runs passes."""

from filterdb.engine.run import summaries

__all__ = ["summaries"]
