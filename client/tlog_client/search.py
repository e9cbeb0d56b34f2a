"""What a search found (`spec/search.md`): verified entries, the latest first, page by page as they are asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tlog_client.answers import OpenedEntry
from tlog_core.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Found:
    """A page: entries with their receipts, all verified; `next`, `indexed` and `size` as in `FoundPage`."""

    hits: tuple[tuple[OpenedEntry, Receipt], ...]
    next: int | None
    indexed: int
    size: int


class Search:
    """What a search found: yields each entry with its receipt, the latest first.

    Of the `size` entries that there were when it began, those from `indexed` on were not looked at: the log's index is
    behind. Each entry is proven to be in the log. That it is what was asked for, and nothing left out, is the log's
    word: who must be sure reads all.
    """

    def __init__(self, fetch: Callable[[int | None], Found]) -> None:
        """Ask for the first page; `fetch` gives the one before an index."""
        self._fetch = fetch
        self._first = fetch(None)
        self.indexed = self._first.indexed
        self.size = self._first.size

    def __iter__(self) -> Iterator[tuple[OpenedEntry, Receipt]]:
        page = self._first
        yield from page.hits
        while page.next is not None:
            page = self._fetch(page.next)
            yield from page.hits
