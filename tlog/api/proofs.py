"""Inclusion and consistency proofs."""

import time

from flask import Response

from tlog.access import Action
from tlog.api.answer import not_beyond, number
from tlog.api.immutable import immutable
from tlog.api.models import ConsistencyProof, InclusionProof, encode
from tlog.api.route import Call, Route
from tlog_core.errors import MalformedError
from tlog_core.proof import prove_consistency, prove_inclusion
from tlog_core.receipt import JSON_TYPE


def inclusion(call: Call, size: str, index: str) -> Response:
    """Answer `GET /segments/<name>/proof/inclusion/<size>/<index>`."""
    began = time.perf_counter()
    tree_size, place = number("size", size), number("index", index)
    if place >= tree_size:
        raise MalformedError("index is not below size; ask for a larger size")
    not_beyond("size", tree_size, call.segment.size(tree_size))

    def prove() -> bytes:
        proof = prove_inclusion(index=place, size=tree_size, node=call.segment.nodes.at(tree_size))
        call.services.metrics.proved(time.perf_counter() - began)
        return encode(InclusionProof(place, proof, tree_size))

    return immutable(call, Action.PROVE, f"proof/inclusion/{tree_size}/{place}", JSON_TYPE, prove)


def consistency(call: Call, old: str, new: str) -> Response:
    """Answer `GET /segments/<name>/proof/consistency/<old>/<new>`."""
    began = time.perf_counter()
    old_size, new_size = number("old", old), number("new", new)
    if old_size > new_size:
        raise MalformedError("old is larger than new; ask the other way round")
    not_beyond("new", new_size, call.segment.size(new_size))

    def prove() -> bytes:
        proof = prove_consistency(old_size=old_size, new_size=new_size, node=call.segment.nodes.at(new_size))
        call.services.metrics.proved(time.perf_counter() - began)
        return encode(ConsistencyProof(new_size, old_size, proof))

    return immutable(call, Action.PROVE, f"proof/consistency/{old_size}/{new_size}", JSON_TYPE, prove)


ROUTES = (
    Route(
        "GET",
        "/segments/<segment>/proof/inclusion/<size>/<index>",
        Action.PROVE,
        inclusion,
        "Prove that an entry is in the tree of a size",
        gives={200: (InclusionProof,)},
    ),
    Route(
        "GET",
        "/segments/<segment>/proof/consistency/<old>/<new>",
        Action.PROVE,
        consistency,
        "Prove that a tree extends an earlier one",
        gives={200: (ConsistencyProof,)},
    ),
)
