#!/usr/bin/env bash
# One archive of .venv, for file systems that count files: `workflows/envs/pack.sh [VENV [ARCHIVE]]`, or `make pack`.
# It is unpacked by unpack.sh on disks that do not count them; needs tar and zstd.
set -euo pipefail
venv=${1:-.venv} archive=${2:-build/env.tar.zst}
command -v zstd >/dev/null || { echo "There is no zstd here: install the package of that name." >&2; exit 2; }
[ -x "$venv/bin/python" ] || { echo "$venv is no virtual environment: run make setup." >&2; exit 2; }
mkdir -p "$(dirname "$archive")"
tar -I "zstd -T0" -cf "$archive.part" -C "$venv" .
mv "$archive.part" "$archive"
echo "$(find "$venv" | wc -l) files of $venv are one of $(du -h "$archive" | cut -f1): $archive"
