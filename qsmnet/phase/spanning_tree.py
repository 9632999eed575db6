"""Multiples of 2 pi along the minimum spanning tree of a graph of voxels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    minimum_spanning_tree,
)

Phases = NDArray[np.float32]
Integers = NDArray[np.int32]
#: Multiples of 2 pi to add to nodes (second) after their parents (first) were unwrapped.
Step = Callable[[Integers, Integers], Integers]


@dataclass(frozen=True, slots=True)
class Edges:
    """Edges between nodes.

    Parameters
    ----------
    first, second
        Nodes.
    cost
        Whole numbers from 1; the tree prefers low ones, and among equals the first in the list.
    """

    first: Integers
    second: Integers
    cost: Integers

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "Edges":
        """Give some of the edges."""
        return Edges(self.first[chosen], self.second[chosen], self.cost[chosen])


def unwrap_along_tree(phase: Phases, edges: Edges, safe: int) -> Phases:
    r"""Phase of the nodes in rad, unwrapped along the minimum spanning tree of the edges.

    Neighbours on the tree differ by at most pi. Parts that no edge joins get unrelated multiples.

    Where no loop of cheap edges disagrees, every tree gives the same phase. So what hangs together
    by edges of cost up to ``safe`` is unwrapped by breadth first, checked edge by edge, and stands
    as one node in the graph whose minimum spanning tree is sought; what holds an edge that
    disagrees is taken apart again. Kruskal's algorithm (1956) joins the same nodes before all
    others, so that this is his tree, for a fraction of the sorting.
    """
    cheap = edges.take(edges.cost <= safe)
    parts, turns = _spread(len(phase), cheap, lambda low, high: _turns(phase[low], phase[high]))
    unwrapped = _turned(phase, turns)
    wrong = _turns(unwrapped[cheap.first], unwrapped[cheap.second]) != 0
    apart = np.isin(parts, parts[cheap.first[wrong]])
    parts[apart] = parts.max(initial=0) + 1 + np.arange(int(apart.sum()), dtype=np.int32)
    parts = np.unique(parts, return_inverse=True)[1].astype(np.int32)
    turns[apart] = 0
    unwrapped = np.where(apart, phase, unwrapped)
    return _turned(phase, turns + _turns_of_parts(unwrapped, parts, edges)[parts])


def _turns(reference: Phases, phase: Phases) -> Integers:
    turns: Integers = np.rint((reference - phase) / (2 * math.pi)).astype(np.int32)
    return turns


def _turned(phase: Phases, turns: Integers) -> Phases:
    # the sum in double: many turns must not cost digits of the phase
    return (phase + 2 * math.pi * turns.astype(np.float64)).astype(np.float32)


def _turns_of_parts(unwrapped: Phases, parts: Integers, edges: Edges) -> Integers:
    """Multiples of 2 pi of whole parts, along the minimum spanning tree of the parts."""
    count = int(parts.max(initial=-1)) + 1
    between = edges.take(parts[edges.first] != parts[edges.second])
    if len(between.cost) == 0:
        return np.zeros(count, dtype=np.int32)
    low, high = parts[between.first], parts[between.second]
    chosen = _tree(low, high, between.cost, count)
    low, high, between = low[chosen], high[chosen], between.take(chosen)
    turns = _turns(unwrapped[between.first], unwrapped[between.second])
    tree = Edges(low, high, between.cost)
    return _spread(count, tree, _lookup(tree, turns, count))[1]


def _tree(low: Integers, high: Integers, cost: Integers, count: int) -> NDArray[np.intp]:
    """Find the edges of the minimum spanning tree, by index; parallel ones are allowed."""
    pairs = _codes(low, high, count)
    order = np.lexsort((cost, pairs))
    cheapest = order[np.flatnonzero(np.diff(pairs[order], prepend=-1))]
    # ties are broken by the edge's number, which comes back from the tree with its cost
    data = cost[cheapest] * float(len(cost)) + cheapest
    kept = minimum_spanning_tree(_graph(count, low[cheapest], high[cheapest], data)).data
    tree: NDArray[np.intp] = np.mod(kept, len(cost)).astype(np.intp)
    return tree


def _lookup(tree: Edges, turns: Integers, count: int) -> Step:
    codes = _codes(tree.first, tree.second, count)
    order = np.argsort(codes)

    def step(low: Integers, high: Integers) -> Integers:
        found = order[np.searchsorted(codes, _codes(low, high, count), sorter=order)]
        return np.where(tree.second[found] == high, turns[found], -turns[found])

    return step


def _spread(count: int, edges: Edges, step: Step) -> tuple[Integers, Integers]:
    """Part of every node, and its multiples of 2 pi along a breadth-first tree of its part."""
    ones = np.ones(len(edges.cost), dtype=np.int8)
    graph = _graph(count, edges.first, edges.second, ones)
    parts = connected_components(graph, directed=False)[1].astype(np.int32)
    roots = np.unique(parts, return_index=True)[1].astype(np.int32)
    # one more node that holds all roots, so that one search reaches every part
    origin = np.full(len(roots), count, dtype=np.int32)
    first, second = np.concatenate([edges.first, origin]), np.concatenate([edges.second, roots])
    graph = _graph(count + 1, first, second, np.ones(len(first), dtype=np.int8))
    parents = breadth_first_order(graph, count, directed=False)[1][:count].astype(np.int32)
    parents[roots] = roots
    turns = step(parents, np.arange(count, dtype=np.int32))
    turns[roots] = 0
    return parts, _sum_to_root(turns, parents)


def _sum_to_root(turns: Integers, parents: Integers) -> Integers:
    """Sum of ``turns`` from each node to its root, whose own are 0, in steps that double."""
    while True:
        grandparents = parents[parents]
        if np.array_equal(grandparents, parents):
            return turns
        turns = turns + turns[parents]
        parents = grandparents


def _graph(count: int, first: Integers, second: Integers, data: NDArray[np.generic]) -> csr_array:
    return coo_array((data, (first, second)), shape=(count, count)).tocsr()


def _codes(first: Integers, second: Integers, count: int) -> NDArray[np.int64]:
    low, high = np.minimum(first, second), np.maximum(first, second)
    codes: NDArray[np.int64] = low.astype(np.int64) * count + high
    return codes
