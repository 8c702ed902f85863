"""All that a log promises, in one class to subclass."""

from amplitude_async.testing.log_contract.claiming import ClaimPromises
from amplitude_async.testing.log_contract.keeping import KeepingPromises
from amplitude_async.testing.log_contract.publishing import ChunkPromises
from amplitude_async.testing.log_contract.reading import ReadingPromises
from amplitude_async.testing.log_contract.setting_up import SetupPromises

__all__ = ["LogContract"]


class LogContract(
    SetupPromises, ChunkPromises, ReadingPromises, ClaimPromises, KeepingPromises
):
    """Subclass it under a name that begins with ``Test`` and define ``make``."""
