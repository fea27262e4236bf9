"""Brings a trained artifact home: what changed there, verified here, in place at once."""

from __future__ import annotations

import shutil
from pathlib import Path

from pockc.remote.sending import record_hashes
from pockc.remote.ssh import Connection
from pockc.runtime.files import replaced_folder
from pockc.runtime.manifest import MANIFEST_FILE
from pockc.runtime.opening import check_files, check_replaceable, read_manifest, sha256_of


def bring_back(connection: Connection, path: str, folder: Path, save: Path) -> tuple[str, ...]:
    """Write to `save` what an artifact on another machine is now.

    Args:
        connection: To the machine.
        path: The artifact there.
        folder: The artifact here that it was deployed from: what is equal is taken from it.
        save: Where the result goes; may be `folder`.

    Returns:
        The files that came over the network.

    Raises:
        UserError: [damaged-file] What arrived is not what was written there; [foreign-folder],
            [write-failed] of `save`; or what the connection raises.
    """
    check_replaceable(save)
    fetched = [MANIFEST_FILE]
    with replaced_folder(save) as new:
        connection.fetch(f"{path}/{MANIFEST_FILE}", new / MANIFEST_FILE)
        manifest = read_manifest(new)
        for name, file in sorted(manifest.files.items()):
            mine = folder / name
            if mine.is_file() and sha256_of(mine) == file.sha256:
                shutil.copy(mine, new / name)
            else:
                connection.fetch(f"{path}/{name}", new / name)
                fetched.append(name)
        check_files(new, manifest)
    record_hashes(connection, path, {n: f.sha256 for n, f in manifest.files.items()})
    return tuple(fetched)
