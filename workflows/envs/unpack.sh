#!/usr/bin/env bash
# Unpack what pack.sh packed: `workflows/envs/unpack.sh ARCHIVE FOLDER`; nothing to do where it is unpacked already.
# Scripts and `activate` get the new place; the Python that .venv was made from must be at its old one.
# Jobs run what lies there, and other users may write beside it: what is not this user's own is refused.
set -euo pipefail
umask go-w
[ $# = 2 ] || { echo "Two words are needed: unpack.sh ARCHIVE FOLDER." >&2; exit 2; }
archive=$1 mark=$(stat -c "%s %Y" "$1")
mkdir -p "$(dirname "$2")"
folder=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
exec 9>>"$folder.lock"
flock 9 # two jobs of one node
if [ -e "$folder" ] || [ -L "$folder" ]; then
  if [ "$(stat -c %u "$folder")" != "$(id -u)" ] || [ ! -O "$folder" ]; then # a link, or where it leads
    echo "$folder belongs to another user: name another folder." >&2
    exit 2
  fi
  [ "$(cat "$folder/.packed" 2>/dev/null)" = "$mark" ] && exit 0
  echo "$folder is not what $archive holds: remove it, or name another folder." >&2
  exit 2
fi
part=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$part"' EXIT
tar -I zstd -xf "$archive" -C "$part"
old=$(sed -nE "s/^ *(export )?VIRTUAL_ENV=[\"']?(\/[^\"']*)[\"']?\$/\2/p" "$part/bin/activate" | head -n1)
as_pattern() { printf %s "$1" | sed 's/[]\/$*.^[]/\\&/g'; }
as_replacement() { printf %s "$1" | sed 's/[\/&]/\\&/g'; }
grep -rlIFZ -- "$old" "$part/bin" | xargs -0r sed -i "s/$(as_pattern "$old")/$(as_replacement "$folder")/g"
echo "$mark" >"$part/.packed"
chmod 755 "$part"
mv -T "$part" "$folder"
