"""What was read last, kept in memory up to so many bytes: a row group, an unpacked file."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ByteLRU(Generic[T]):
    """Goes empty to worker processes. The newest stays even when it is larger than all the room."""

    def __init__(self, room: int):
        self.room = room
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """What is held under `key`, or what `make` gives, with its bytes."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        value, size = make()
        with self._lock:
            self._kept[key] = value, size
            while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self.room:
                self._kept.popitem(last=False)
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {"room": self.room}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["room"])  # type: ignore[misc]
