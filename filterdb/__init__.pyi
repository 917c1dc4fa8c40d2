# The public names and where each is defined; a new one is an import here and a line of `__all__`.
# `filterdb/__init__.py` reads the imports; `__all__` is for type checkers, and a test compares the two.

from filterdb import errors as errors
from filterdb.analysis.check import check as check
from filterdb.analysis.codebook import codebook as codebook
from filterdb.analysis.coefficients import coefficients as coefficients
from filterdb.analysis.counting import CountingOptions as CountingOptions
from filterdb.analysis.degeneration import degeneration as degeneration
from filterdb.analysis.degeneration import exclude_verdict as exclude_verdict
from filterdb.analysis.degeneration_drift import degeneration_drift as degeneration_drift
from filterdb.analysis.density import density as density
from filterdb.analysis.distributions import distributions as distributions
from filterdb.analysis.drift import drift as drift
from filterdb.analysis.drift_metrics import Metric as Metric
from filterdb.analysis.explain import explain as explain
from filterdb.analysis.grouping import Key as Key
from filterdb.analysis.lineage import lineage as lineage
from filterdb.analysis.nearest import nearest as nearest
from filterdb.analysis.noise import Noise as Noise
from filterdb.analysis.pca import pca as pca
from filterdb.analysis.pca import principal_angles as principal_angles
from filterdb.analysis.phenotypes import phenotypes as phenotypes
from filterdb.analysis.reference import write_reference as write_reference
from filterdb.analysis.rules import Rules as Rules
from filterdb.analysis.series import series as series
from filterdb.analysis.spectrum import spectrum as spectrum
from filterdb.analysis.summarise import summarise as summarise
from filterdb.analysis.surveys import filter_scale as filter_scale
from filterdb.analysis.surveys import statistics as statistics
from filterdb.analysis.threshold import randomness_threshold as randomness_threshold
from filterdb.cluster import connect as connect
from filterdb.cluster.places import Client as Client
from filterdb.ingestion.compact import compact as compact
from filterdb.ingestion.ingested import Ingested as Ingested
from filterdb.ingestion.published import import_hdf5 as import_hdf5
from filterdb.ingestion.purge import Purged as Purged
from filterdb.ingestion.purge import purge as purge
from filterdb.ingestion.relabel import relabel as relabel
from filterdb.ingestion.run import ingest as ingest
from filterdb.models.hub_catalog import catalog as catalog
from filterdb.models.sandbox import Limits as Limits
from filterdb.numerics.modes import Mode as Mode
from filterdb.numerics.shape import Bounds as Bounds
from filterdb.page.entry import report as report
from filterdb.plotting import plot as plot
from filterdb.reduce.basis import refit as refit
from filterdb.reduce.integrity import Verified as Verified
from filterdb.reduce.integrity import verify as verify
from filterdb.reduce.joint_densities import Pair as Pair
from filterdb.server.serve import Server as Server
from filterdb.server.serve import serve as serve
from filterdb.store.collect import Garbage as Garbage
from filterdb.store.collect import gc as gc
from filterdb.store.database import AnyDatabase as AnyDatabase
from filterdb.store.database import Database as Database
from filterdb.store.database import open_database
from filterdb.store.expiry import expire as expire
from filterdb.store.history import remove as remove
from filterdb.store.history import restore as restore
from filterdb.store.history import tag as tag
from filterdb.store.verify import Problem as Problem
from filterdb.version import __version__ as __version__

open = open_database

__all__ = [
    "AnyDatabase",
    "Bounds",
    "Client",
    "CountingOptions",
    "Database",
    "Garbage",
    "Ingested",
    "Key",
    "Limits",
    "Metric",
    "Mode",
    "Noise",
    "Pair",
    "Problem",
    "Purged",
    "Rules",
    "Server",
    "Verified",
    "__version__",
    "catalog",
    "check",
    "codebook",
    "coefficients",
    "compact",
    "connect",
    "degeneration",
    "degeneration_drift",
    "density",
    "distributions",
    "drift",
    "errors",
    "exclude_verdict",
    "expire",
    "explain",
    "filter_scale",
    "gc",
    "import_hdf5",
    "ingest",
    "lineage",
    "nearest",
    "open",
    "pca",
    "phenotypes",
    "plot",
    "principal_angles",
    "purge",
    "randomness_threshold",
    "refit",
    "relabel",
    "remove",
    "report",
    "restore",
    "series",
    "serve",
    "spectrum",
    "statistics",
    "summarise",
    "tag",
    "verify",
    "write_reference",
]
