"""Tuning: candidates of kernels are measured, and what wins is kept in a database."""

from pockc.tuning.database import Database, Key, Record, read_database, write_database
from pockc.tuning.search import Job, Outcome, jobs_of, tune_kernel

__all__ = [
    "Database",
    "Job",
    "Key",
    "Outcome",
    "Record",
    "jobs_of",
    "read_database",
    "tune_kernel",
    "write_database",
]
