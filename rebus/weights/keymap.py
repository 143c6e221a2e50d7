"""Names of weights in a released file ⇄ ours: one table, both directions.

A row is `(theirs, ours)`. Both are names with the same placeholders: `{i}`, `{j}` … stand for a number, `{p}` for
`weight` or `bias`, `{p:weight|bias|running_mean}` for any of those listed (later mentions may just say `{p}`). A tuple
in place of a name says that the other side is its parts joined along dimension 0, in equal slices. A tensor that lies
otherwise than on the other side has one of `rebus.weights.key_sides` round its name: `Transposed("proj")`.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rebus.core.errors import BadCheckpoint
from rebus.weights.key_sides import Name, Names, Row, Side, name_of
from rebus.weights.lazy_tensor import LazyTensor, Tensors

_PLACE = re.compile(r"\{(\w+)(?::([^}]*))?\}")


@dataclass(frozen=True)
class _Name:
    """One name of a row, compiled: `match` finds the placeholders in a real name, `fill` puts them in."""

    text: str
    pattern: re.Pattern[str]
    template: str
    side: Side | None

    @classmethod
    def compile(cls, given: Name, choices: dict[str, str]) -> "_Name":
        name = name_of(given)
        pattern, template, at, seen = "", "", 0, set[str]()
        for place in _PLACE.finditer(name):
            key = place[1]
            literal = name[at : place.start()]
            allowed = choices.get(key, r"weight|bias" if key == "p" else r"\d+")
            pattern += re.escape(literal) + (f"(?P={key})" if key in seen else f"(?P<{key}>{allowed})")
            template += literal + "{" + key + "}"
            seen.add(key)
            at = place.end()
        pattern += re.escape(name[at:])
        side = None if isinstance(given, str) else given
        return cls(name, re.compile(pattern), template + name[at:], side)

    def fill(self, places: dict[str, str]) -> str:
        return self.template.format_map(places)

    def plain(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """What came under this name, as the row means it."""
        return tensor if self.side is None else self.side.plain(tensor, name)

    def written(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """The reverse of `plain`."""
        return tensor if self.side is None else self.side.written(tensor, name)


@dataclass(frozen=True)
class _Row:
    theirs: tuple[_Name, ...]
    ours: tuple[_Name, ...]

    @classmethod
    def compile(cls, theirs: Names, ours: Names) -> "_Row":
        left, right = _several(theirs), _several(ours)
        if len(left) > 1 and len(right) > 1:
            raise ValueError(f"one side of a row must be a single name; got {theirs} and {ours}")
        choices: dict[str, str] = {}
        for name in (*left, *right):
            for key, allowed in _PLACE.findall(name_of(name)):
                if allowed:
                    choices[key] = "|".join(re.escape(word) for word in allowed.split("|"))
        keys = [{place[0] for place in _PLACE.findall(name_of(name))} for name in (*left, *right)]
        if any(k != keys[0] for k in keys):
            raise ValueError(f"both sides of a row must hold the same placeholders; got {theirs} and {ours}")
        return cls(
            tuple(_Name.compile(name, choices) for name in left),
            tuple(_Name.compile(name, choices) for name in right),
        )

    def __str__(self) -> str:
        return " + ".join(n.text for n in self.theirs) + " → " + " + ".join(n.text for n in self.ours)


def _several(names: Names) -> tuple[Name, ...]:
    return names if isinstance(names, tuple) else (names,)


def _places(rows: Sequence[_Row], side: str) -> Iterator[tuple[_Name, tuple[int, int]]]:
    """Every name of one side, and where it stands: the number of its row, and its own in the row."""
    for number, row in enumerate(rows):
        for index, name in enumerate(getattr(row, side)):
            yield name, (number, index)


_LISTED = 20  # names in an error


class KeyMap:
    """The table of one released format.

    `ignore`: glob patterns (`*.position_ids`) of released names that are known and dropped.
    `prefixes`: leading words that a file may or may not have (`module.`); they are never written.
    `also`: `(theirs_elsewhere, theirs)` pairs of leading words, for a second layout that is read but never written.
    The first row that matches wins.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        ignore: Sequence[str] = (),
        prefixes: Sequence[str] = (),
        also: Sequence[tuple[str, str]] = (),
    ):
        self.rows = tuple(_Row.compile(theirs, ours) for theirs, ours in rows)
        # By side: names without placeholders, which are looked up, and the others, which are tried in order.
        self._fixed: dict[str, dict[str, tuple[int, int]]] = {}
        self._open: dict[str, list[tuple[int, int]]] = {}
        for side in ("theirs", "ours"):
            named = list(_places(self.rows, side))
            self._fixed[side] = {name.text: place for name, place in reversed(named) if not name.pattern.groups}
            self._open[side] = [place for name, place in named if name.pattern.groups]
        self.ignore = tuple(ignore)
        self.prefixes = tuple(prefixes)
        self.also = tuple(also)

    def to_ours(self, tensors: Tensors, faults: list[str] | None = None) -> dict[str, LazyTensor]:
        """Released names → ours, without reading a value.

        Names that no row knows and parts that do not go together are added to `faults`; without such a list they raise
        one `BadCheckpoint`.
        """
        met: list[str] = []
        found: dict[str, tuple[str, _Row, int, dict[str, str]]] = {}
        strange = []
        for name in tensors:
            spelled, hit = self._find_theirs(name)
            if hit is None:
                if not any(fnmatchcase(s, pattern) for s in self._spellings(name) for pattern in self.ignore):
                    strange.append(name)
                continue
            if spelled in found:
                met.append(f'weights "{found[spelled][0]}" and "{name}" are two spellings of one')
            else:
                found[spelled] = (name, *hit)
        if strange:
            met.append(self._unmapped(strange, [n.text for row in self.rows for n in row.theirs]))
        ours = self._convert(found, tensors, "theirs", met)
        if faults is not None:
            faults += met
        elif met:
            raise BadCheckpoint(". ".join(met))
        return ours

    def to_theirs(self, tensors: Tensors) -> dict[str, LazyTensor]:
        """Our names → released ones, without reading a value. Raises `BadCheckpoint` for names that no row knows."""
        found = {}
        for name in tensors:
            hit = self._find(name, "ours")
            if hit is None:
                raise BadCheckpoint(self._unmapped([name], [n.text for row in self.rows for n in row.ours]))
            found[name] = (name, *hit)
        met: list[str] = []
        theirs = self._convert(found, tensors, "ours", met)
        if met:
            raise BadCheckpoint(". ".join(met))
        return theirs

    def ours_name(self, theirs: str) -> tuple[str, ...]:
        """Our names of a released one; empty for names that are dropped."""
        _, hit = self._find_theirs(theirs)
        if hit is None:
            if any(fnmatchcase(s, pattern) for s in self._spellings(theirs) for pattern in self.ignore):
                return ()
            raise BadCheckpoint(self._unmapped([theirs], [n.text for row in self.rows for n in row.theirs]))
        row, _, places = hit
        return tuple(n.fill(places) for n in row.ours)

    def theirs_name(self, ours: str) -> tuple[str, ...]:
        """The released names of one of ours."""
        hit = self._find(ours, "ours")
        if hit is None:
            raise BadCheckpoint(self._unmapped([ours], [n.text for row in self.rows for n in row.ours]))
        row, _, places = hit
        return tuple(n.fill(places) for n in row.theirs)

    def _spellings(self, name: str) -> Iterator[str]:
        """The name as it came, then without optional leading words, then in the other layout's words.

        Each change is made at most once, so that a rule which makes names longer ends.
        """
        changes = [*((prefix, "") for prefix in self.prefixes), *self.also]
        queue, seen = [(name, frozenset[int]())], set[str]()
        while queue:
            spelled, made = queue.pop(0)
            if spelled not in seen:
                seen.add(spelled)
                yield spelled
                for i, (old, new) in enumerate(changes):
                    if i not in made and spelled.startswith(old):
                        queue.append((new + spelled.removeprefix(old), made | {i}))

    def _find_theirs(self, name: str) -> tuple[str, tuple[_Row, int, dict[str, str]] | None]:
        for spelled in self._spellings(name):
            hit = self._find(spelled, "theirs")
            if hit is not None:
                return spelled, hit
        return name, None

    def _find(self, name: str, side: str) -> tuple[_Row, int, dict[str, str]] | None:
        fixed = self._fixed[side].get(name)
        for place in self._open[side]:
            if fixed is not None and place > fixed:
                break
            number, index = place
            if match := getattr(self.rows[number], side)[index].pattern.fullmatch(name):
                return self.rows[number], index, match.groupdict()
        return None if fixed is None else (self.rows[fixed[0]], fixed[1], {})

    def _convert(
        self, found: dict[str, tuple[str, _Row, int, dict[str, str]]], tensors: Tensors, side: str, faults: list[str]
    ) -> dict[str, LazyTensor]:
        groups: dict[tuple[int, tuple[tuple[str, str], ...]], tuple[_Row, dict[str, str], dict[int, str]]] = {}
        for name, row, index, places in found.values():
            key = (id(row), tuple(sorted(places.items())))
            groups.setdefault(key, (row, places, {}))[2][index] = name
        result: dict[str, LazyTensor] = {}
        for row, places, names in groups.values():
            source, target = (row.theirs, row.ours) if side == "theirs" else (row.ours, row.theirs)
            lacking = [n.fill(places) for index, n in enumerate(source) if index not in names]
            if lacking:
                faults.append(f"weights missing: {', '.join(lacking)} (the rule is {row})")
                continue
            pieces = [n.plain(LazyTensor.of(tensors[names[i]]), names[i]) for i, n in enumerate(source)]
            if len({p.shape for p in pieces}) > 1:
                shapes = ", ".join(f"{names[i]} {list(p.shape)}" for i, p in enumerate(pieces))
                faults.append(f"weights that belong together have different shapes: {shapes}")
                continue
            whole = LazyTensor.joined(pieces) if len(pieces) > 1 else pieces[0]
            if len(target) > 1 and (not whole.shape or whole.shape[0] % len(target)):
                faults.append(f'weight "{names[0]}" {list(whole.shape)} cannot be split in {len(target)} equal parts')
                continue
            for index, n in enumerate(target):
                new = n.fill(places)
                if new in result:
                    faults.append(f'two weights become "{new}"; the second is "{names[0]}"')
                    continue
                result[new] = n.written(whole.part(index, len(target)) if len(target) > 1 else whole, new)
        return result

    def _unmapped(self, names: Sequence[str], rules: list[str]) -> str:
        """What is wrong: it names every culprit, each with the rule that comes nearest."""
        rule_of = {_PLACE.sub(lambda m: "weight" if m[1] == "p" else "#", rule): rule for rule in rules}
        said = []
        for name in names[:_LISTED]:
            near = difflib.get_close_matches(re.sub(r"\d+", "#", name), rule_of, n=1, cutoff=0.3)
            said.append(f'unexpected weight "{name}"' + (f'; the nearest rule is "{rule_of[near[0]]}"' if near else ""))
        more = [f"And {len(names) - _LISTED} more unexpected"] if len(names) > _LISTED else []
        return ". ".join([*said, *more])


class OwnNames:
    """A layout whose names are ours, but for a beginning that ours have (`net.`)."""

    def __init__(self, ours: str = ""):
        self.ours = ours

    def to_ours(self, tensors: Tensors, faults: list[str] | None = None) -> dict[str, LazyTensor]:
        """`faults` as in `KeyMap`; any name will do."""
        return {self.ours + name: LazyTensor.of(tensor) for name, tensor in tensors.items()}

    def to_theirs(self, tensors: Tensors) -> dict[str, LazyTensor]:
        return {name.removeprefix(self.ours): LazyTensor.of(tensor) for name, tensor in tensors.items()}
