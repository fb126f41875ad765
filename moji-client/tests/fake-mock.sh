#!/bin/sh
# A stand-in for Mock that misbehaves on demand. $HOSTMOCK_MODE says how, $HOSTMOCK_DIR is where it
# says what it did. A file of the repository rather than one that a test writes: executing what
# another thread may still hold open for writing fails with ETXTBSY. It ends with its folder.
dir=$HOSTMOCK_DIR
case " $* " in
*" --version "*)
    case $HOSTMOCK_MODE in
    no-group) echo "RuntimeError: Must be member of 'mock' group to run mock! (['users'])" >&2; exit 1 ;;
    broken) echo "ImportError: no module" >&2; exit 1 ;;
    esac
    echo 6.7
    exit 0 ;;
*" --orphanskill "*)
    echo orphanskill >>"$dir/calls"
    if [ -s "$dir/orphan" ]; then
        kill -KILL "$(cat "$dir/orphan")"
        rm "$dir/orphan"
    fi
    exit 0 ;;
*" --clean "*)
    echo clean >>"$dir/calls"
    if [ -e "$dir/locked" ]; then
        rm "$dir/locked"
        echo "ERROR: Build root is locked by another process." >&2
        exit 60
    fi
    [ "$HOSTMOCK_MODE" != clean-fails ] || exit 20
    [ "$HOSTMOCK_MODE" != clean-hangs ] || exec sleep 100
    exit 0 ;;
esac

# rpmbuild: in a session of its own, deaf to SIGTERM. Ready when its id is in the file.
rpmbuild() {
    setsid sh -c 'trap "" TERM HUP; echo $$ >"$1.new"; mv "$1.new" "$1"; while [ -d "$2" ]; do sleep 0.05; done' \
        sh "$dir/orphan" "$dir" &
    while [ ! -s "$dir/orphan" ]; do sleep 0.01; done
}
ready() { echo $$ >"$dir/pid.new"; mv "$dir/pid.new" "$dir/pid"; }

echo "INFO: mock.py version 6.7 starting, args: $*"
echo "on standard error" >&2
case $HOSTMOCK_MODE in
succeeds) exit 0 ;;
fails) exit 30 ;;
looks)
    env >"$dir/env"
    fds=$(for fd in 0 1 2; do readlink "/proc/$$/fd/$fd"; done)
    echo "$fds" >"$dir/fds"
    exit 0 ;;
leaves-a-child)
    sleep 100 &
    echo $! >"$dir/child"
    exit 0 ;;
kills-itself) rpmbuild; kill -KILL $$ ;;
ends-by-term) rpmbuild; trap 'kill -KILL "$(cat "$dir/orphan")"; echo term >>"$dir/calls"; exit 143' TERM ;;
waits-for-rpmbuild)
    # Like Mock for a caller that may not signal it: only --orphanskill helps.
    trap '' TERM
    rpmbuild
    ready
    while [ -e "$dir/orphan" ]; do sleep 0.02; done
    exit 241 ;;
deaf) trap '' TERM; rpmbuild; rm -f "$dir/hidden"; mv "$dir/orphan" "$dir/hidden"; ready
    while [ -d "$dir" ]; do sleep 0.02; [ -e "$dir/orphan" ] || cp "$dir/hidden" "$dir/orphan"; done ;;
silent) ready; exec sleep 100 ;;
writes-slowly)
    i=0
    while [ $i -lt 20 ]; do i=$((i + 1)); echo "line $i" >>"$dir/build.log"; sleep 0.1; done
    exit 0 ;;
writes-for-ever) ready; while [ -d "$dir" ]; do echo x >>"$dir/build.log"; sleep 0.05; done ;;
esac
ready
while [ -d "$dir" ]; do sleep 0.02; done
