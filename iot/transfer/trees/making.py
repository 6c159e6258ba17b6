"""Reads both sides and has a plan made of them. Nothing is changed."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from iot.transfer.errors import NameRefused, NotFound, PermanentError, TransferError
from iot.transfer.model import Direction, LocalPath, RemoteFile, RemotePath
from iot.transfer.names import path_text, remote_path
from iot.transfer.remote import Remote
from iot.transfer.source import local_error
from iot.transfer.trees.local import local_join, local_tree, name_refused, node_of
from iot.transfer.trees.model import Act, Kind, Node, Step, Tree, TreePlan
from iot.transfer.trees.planning import Ends, PlanRules, plan_tree, why_not_prune
from iot.transfer.trees.remote import remote_join, remote_node, remote_nodes, remote_tree

__all__ = ["Syncing", "check_folder", "found_folder", "plan_download", "plan_sync", "plan_upload"]

NOT_THERE = Tree(exists=False)


@dataclass(frozen=True, slots=True)
class Syncing:
    """prune: remove what is only at the destination. allow_empty: also if the source holds no files. max_remove: the
    most names that may be removed. time_tolerance_s: see planning.PlanRules."""

    prune: bool = False
    allow_empty: bool = False
    max_remove: int | None = None
    time_tolerance_s: int = 0


def plan_upload(
    remote: Remote, pairs: Iterable[tuple[LocalPath, RemotePath]], *, update: bool, keep_times: bool
) -> TreePlan:
    """For local files and folders, each with its remote path."""
    steps: list[Step] = []
    files: dict[str, tuple[str, str, Node]] = {}
    for given, far in pairs:
        local, dest = os.fsdecode(given), path_text(remote_path(far, "remote"))
        try:
            node = node_of(os.stat(local), is_link=False)
        except OSError as error:
            steps.append(_failed(local, dest, local_error(error, local)))
            continue
        if node.kind is Kind.FOLDER:
            source = local_tree(local)
            there = _compared(remote, dest, source) if update else NOT_THERE
            steps += _folder(source, there, _uploads(local, dest), _upload_rules(remote, update=update))
        else:
            files[_joined(dest)] = (local, dest, node)
    there = remote_nodes(remote, list(dict.fromkeys(map(posixpath.dirname, files)))) if update else NOT_THERE
    if update:
        there = _filled_in(remote, there, "", {key: node for key, (_, _, node) in files.items()})
    return _plan(Direction.UPLOAD, [*steps, *_single(files, there, _upload_rules(remote, update=update))], keep_times)


def plan_download(
    remote: Remote, wanted: Iterable[tuple[RemotePath, LocalPath, RemoteFile | None]], *, update: bool, keep_times: bool
) -> TreePlan:
    """For remote files and folders, each with its local path, and what `stat` says about it, if that is known."""
    steps: list[Step] = []
    files: dict[str, tuple[str, str, Node]] = {}
    rules = _with_parts(remote, PlanRules(update=update, refused=name_refused))
    for far, given, known in wanted:
        source, local = path_text(remote_path(far, "remote")), os.fsdecode(given)
        try:
            node = remote_node(known or _found(remote, source))
        except PermanentError as error:
            steps.append(_failed(source, local, error))
            continue
        if node.kind is Kind.FOLDER:
            here = local_tree(local)
            there = _compared(remote, source, here) if update else remote_tree(remote, source)
            steps += _folder(there, here, _downloads(source, local), rules)
        else:
            files[local.replace(os.sep, "/")] = (source, local, node)
    return _plan(Direction.DOWNLOAD, [*steps, *_single(files, _local_nodes(files), rules)], keep_times)


def plan_sync(remote: Remote, local: LocalPath, far: RemotePath, direction: Direction, wish: Syncing) -> TreePlan:
    """For one folder on each side. Raises: NotFound, NameRefused or its error if the source is not a folder that can be
    listed."""
    here, there = os.fsdecode(local), path_text(remote_path(far, "remote"))
    if direction is Direction.UPLOAD:
        check_folder(here)
    else:
        found_folder(remote, there)
    leads_to = "" if direction is Direction.UPLOAD else os.path.realpath(here)
    local_side = local_tree(here)
    remote_side = _compared(remote, there, local_side)
    if direction is Direction.UPLOAD:
        source, dest, ends, rules = local_side, remote_side, _uploads(here, there), _upload_rules(remote, update=True)
    else:
        source, dest, ends = remote_side, local_side, _downloads(there, here)
        rules = _with_parts(remote, PlanRules(update=True, refused=name_refused))
    if not source.exists:  # it went meanwhile
        raise NotFound(f"{ends.source('')} does not exist")
    if "" in source.unknown:
        raise source.unknown[""]
    rules = replace(rules, prune=wish.prune, time_tolerance_s=wish.time_tolerance_s)
    plan = _plan(direction, _folder(source, dest, ends, rules), keep_times=True)
    if not wish.prune:
        return plan
    why_not = why_not_prune(source, len(plan.removals), allow_empty=wish.allow_empty, max_remove=wish.max_remove)
    return replace(plan, dest=ends.dest(""), leads_to=leads_to, prune_refused=why_not)


# -- the pieces of a plan


def _plan(direction: Direction, steps: list[Step], keep_times: bool) -> TreePlan:
    return TreePlan(direction, tuple(steps), keep_times=keep_times)


def _folder(source: Tree, dest: Tree, ends: Ends, rules: PlanRules) -> list[Step]:
    steps = plan_tree(source, dest, ends, rules)
    if dest.exists or "" in source.unknown:
        return steps
    return [Step(Act.MAKE_FOLDER, "", ends.source(""), ends.dest(""), "not there yet"), *steps]


def _single(files: Mapping[str, tuple[str, str, Node]], dest: Tree, rules: PlanRules) -> list[Step]:
    """Steps for files that were named one by one, by their destination."""
    source, rules = Tree({key: node for key, (_, _, node) in files.items()}), replace(rules, named=True)
    ends = Ends(lambda key: files[key][0], lambda key: files[key][1])
    steps = plan_tree(source, dest, ends, rules)
    return [replace(step, path=posixpath.basename(step.path)) for step in steps]


def _failed(source: str, dest: str, error: TransferError) -> Step:
    return Step(Act.FAIL, posixpath.basename(dest), source, dest, str(error), error=error)


def _uploads(local: str, far: str) -> Ends:
    return Ends(lambda path: local_join(local, path), lambda path: remote_join(far, path))


def _downloads(far: str, local: str) -> Ends:
    return Ends(lambda path: remote_join(far, path), lambda path: local_join(local, path))


def _upload_rules(remote: Remote, *, update: bool) -> PlanRules:
    keeps_times = remote.capabilities.keeps_times
    return _with_parts(remote, PlanRules(update=update, keeps_times=keeps_times, sidecar=remote.options.sidecar))


def _with_parts(remote: Remote, rules: PlanRules) -> PlanRules:
    return replace(rules, part_suffix=remote.options.part_suffix, exact_parts=remote.options.exact_part)


# -- what is there


def check_folder(local: LocalPath) -> None:
    """Raises: NotFound, NameRefused, PermissionDenied, LocalStateError if it is not a folder that can be read."""
    path = os.fsdecode(local)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise local_error(error, path) from error
    if not is_folder:
        raise NameRefused(f"{path} is not a folder")


def found_folder(remote: Remote, path: RemotePath) -> RemoteFile:
    """What `stat` says about it. Raises: NotFound, NameRefused if it is not a folder."""
    text = path_text(remote_path(path, "remote"))
    file = _found(remote, text)
    if remote_node(file).kind is not Kind.FOLDER:
        raise NameRefused(f"{text} is not a folder")
    return file


def _found(remote: Remote, path: str) -> RemoteFile:
    file = remote.stat(remote_path(path))
    if file is None:
        raise NotFound(f"{path} is not on the server")
    return file


def _compared(remote: Remote, root: str, local: Tree) -> Tree:
    """A remote folder that is compared with a local one."""
    return _filled_in(remote, remote_tree(remote, root), root, local.nodes)


def _filled_in(remote: Remote, tree: Tree, root: str, others: Mapping[str, Node]) -> Tree:
    """Ask for sizes and times that the listing did not reveal and that matter: of a file that may be the same."""
    nodes = dict(tree.nodes)
    for path, other in others.items():
        node = nodes.get(path)
        if node is None or node.kind is not Kind.FILE or other.kind is not Kind.FILE:
            continue
        if None in (node.size, node.mtime_s) and node.size in (None, other.size):
            try:
                told = remote.stat(remote_path(remote_join(root, path) if root else path))
            except PermanentError:
                continue  # it stays unknown, which is never the same
            if told is not None:
                nodes[path] = replace(remote_node(told), is_link=node.is_link)
    return replace(tree, nodes=nodes)


def _local_nodes(files: Mapping[str, tuple[str, str, Node]]) -> Tree:
    nodes = {}
    for key, (_, local, _) in files.items():
        try:
            nodes[key] = node_of(os.stat(local), is_link=os.path.islink(local))
        except OSError:
            continue  # not there, or it cannot be looked at: then writing to it will fail with the reason
    return Tree(nodes)


def _joined(path: str) -> str:
    """The path as its folder and its name make it: without a doubled slash between them."""
    return posixpath.join(posixpath.dirname(path), posixpath.basename(path))
