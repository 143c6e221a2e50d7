"""Images by their web addresses: a Parquet table in, shards and a journal of every row out."""

from rebus.data.downloading.addresses import Addresses, is_public
from rebus.data.downloading.download_run import JOURNAL, Download, Over
from rebus.data.downloading.download_unit import Settings
from rebus.data.downloading.failure import OUTCOMES
from rebus.data.downloading.fetching import Caps

__all__ = ["JOURNAL", "OUTCOMES", "Addresses", "Caps", "Download", "Over", "Settings", "is_public"]
