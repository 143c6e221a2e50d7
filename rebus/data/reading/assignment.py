"""Pairs of rows and columns, each in one pair at most, whose values add up to the most (Kuhn, "The Hungarian Method for
the Assignment Problem", 1955; by shortest augmenting paths, as Jonker and Volgenant, 1987)."""

import numpy as np


def assign(values: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of each pair, sorted: as many as there are rows or columns, whichever are fewer."""
    rows, columns = values.shape
    if rows > columns:
        return sorted((row, column) for column, row in assign(values.T))
    cost = -values.astype(np.float64)
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # prices, under which no pair costs less than nothing
    taken = np.full(columns, -1)  # column → its row
    for row in range(rows):
        best = np.full(columns, np.inf)  # least cost of a path from `row` to each column
        before = np.full(columns, -1)  # column of the path before it
        done = np.zeros(columns, dtype=bool)
        at, column, length = row, -1, 0.0
        while True:
            reached = length + cost[at] - of_row[at] - of_column
            nearer = ~done & (reached < best)
            best[nearer], before[nearer] = reached[nearer], column
            column = int(np.where(done, np.inf, best).argmin())
            length, done[column] = best[column], True
            if taken[column] < 0:
                break
            at = int(taken[column])
        of_row[row] += length
        passed = done & (taken >= 0)
        of_row[taken[passed]] += length - best[passed]
        of_column[passed] -= length - best[passed]
        while column >= 0:  # each row of the path moves on by one column
            previous = int(before[column])
            taken[column] = row if previous < 0 else taken[previous]
            column = previous
    return sorted((int(taken[column]), int(column)) for column in np.flatnonzero(taken >= 0))
