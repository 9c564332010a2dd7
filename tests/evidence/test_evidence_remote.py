"""A board over ssh, with a real sshd: the whole path, the connection cut, hostile names, and every fault."""

from __future__ import annotations

import getpass
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from board import Board, Line, write_program
from rich.console import Console
from small_bundle import small_bundle, two_models

from edgedistill.errors import DocumentError, EdgedistillError, StoppedError, UsageError
from edgedistill.evidence.board import calls, ssh
from edgedistill.evidence.board.address import parse_address
from edgedistill.evidence.board.remote import SshTarget
from edgedistill.evidence.board.ssh import BOOT
from edgedistill.progress import Face

pytestmark = pytest.mark.ssh
HOSTILE = "a b'c\"d;touch canary;$(touch canary)`touch canary`\n|touch canary #"
PYTHON = shlex.quote(sys.executable)
QUICK = ("bench", "--threads", "1", "--min-seconds", "0.05", "--min-runs", "64")
SLOW = (
    "import sys, time, json, hashlib\n"
    "print('working', file=sys.stderr, flush=True)\n"
    "time.sleep({seconds})\n"
    "out = sys.argv[sys.argv.index('--json') + 1]\n"
    "found = {{'schema': 'edgedistill.kit/1', 'kit_version': '0', 'rows': [], 'machine': {{}}}}\n"
    "found['bundle'] = {{'manifest_sha256': '0' * 64}}\n"
    "text = json.dumps(found, sort_keys=True, separators=(',', ':'))\n"
    "found['content_sha256'] = hashlib.sha256(text.encode()).hexdigest()\n"
    "json.dump(found, open(out, 'w'))\n"
)


class Told(Face):
    """A face that keeps what it says."""

    def __init__(self) -> None:
        super().__init__(1, Console(file=io.StringIO(), width=500))
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def has(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board as it comes, with a Python that has what the kit needs; this machine's `ssh` finds it."""
    found = Board(tmp_path / "board")
    found.start()
    monkeypatch.setenv("PATH", found.client_path)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle"), [HOSTILE, "$(touch canary)", "-rf"])


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[str], Path]:
    """A whole bundle whose kit is a script of ours: what matters is how its end is told."""

    def make(code: str) -> Path:
        folder = small_bundle(tmp_path / "scripted")
        (folder / "ontarget.pyz").write_text(code)
        return folder

    return make


def run(
    board: Board,
    bundle: Path,
    out: Path,
    *arguments: str,
    address: str | None = None,
    face: Face | None = None,
) -> dict[str, object]:
    face = face or Told()
    with SshTarget(parse_address(address or board.address), face) as target:
        return target.run(bundle, arguments or ("info",), out, face)


def fails(
    board: Board, bundle: Path, out: Path, *arguments: str, address: str | None = None
) -> EdgedistillError:
    """The error of a run, which is one paragraph; nothing of the run is left on the board."""
    with pytest.raises(EdgedistillError) as caught:
        run(board, bundle, out, *arguments, address=address)
    text = str(caught.value)
    assert "Traceback" not in text and 20 < len(text) < 1200
    assert not out.exists() and not ours(board)
    return caught.value


def ours(board: Board) -> list[str]:
    return [name for name in board.left() if name.startswith("edgedistill-")]


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)


def running(board: Board) -> list[str]:
    """Processes that have the board's temporary folder on their command line."""
    found = subprocess.run(
        ["pgrep", "-f", str(board.tmp)], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


# The whole path


def test_the_kit_runs_on_the_board_and_its_samples_come_back_and_nothing_stays(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    face, out = Told(), tmp_path / "kit.json"
    with SshTarget(parse_address(board.address), face) as target:
        document = target.run(bundle, QUICK, out, face)
        assert len(ours(board)) == 1
        private = board.tmp / ours(board)[0]
        assert private.stat().st_mode & 0o077 == 0, "nobody else on the board reads it"
        first = len(face.lines)
        assert target.run(bundle, ["info"], tmp_path / "info.json", face)["rows"] == []
        assert not any("copying" in line for line in face.lines[first:]), (
            "what is there does not travel again"
        )
    (row,) = document["rows"]
    assert row["n"] == len(row["samples_s"]) >= 64 and row["provider"] == "CPUExecutionProvider"
    assert json.loads(out.read_text()) == document
    assert face.has("onnxruntime") and face.has("copying")
    assert ours(board) == [] and running(board) == []
    assert board.commands() == {BOOT}, "one constant command, whatever the names"
    assert board.log.read_text().count("Accepted publickey") == 1, "one login serves all"


def test_what_a_login_script_prints_is_not_taken_for_an_answer(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    session = board.folder / "session"
    session.write_text(
        session.read_text().replace("#!/bin/sh\n", "#!/bin/sh\necho 'edgedistill Welcome {}'\n")
    )
    assert run(board, bundle, tmp_path / "kit.json")["rows"] == []


def test_hostile_paths_and_class_names_run_nothing_but_the_kit(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    folder = board.home / HOSTILE
    address = f"{board.address}{quote(str(folder))}"
    document = run(board, bundle, tmp_path / "first.json", "check", address=address)
    assert document["check"]["ok"] is True  # type: ignore[index]
    face = Told()
    run(board, bundle, tmp_path / "second.json", address=address, face=face)
    assert not face.has("copying")
    assert sorted(p.name for p in folder.iterdir()) == ["bundle"], (
        "an own folder keeps the bundle alone"
    )
    assert not list(tmp_path.rglob("canary")) and not Path("canary").exists()
    assert board.commands() == {BOOT}


def test_one_changed_file_travels_alone(board: Board, tmp_path: Path) -> None:
    address = f"{board.address}{quote(str(board.home / 'own'))}"
    bundle = small_bundle(tmp_path / "one")
    run(board, bundle, tmp_path / "a.json", address=address)
    (board.home / "own/bundle/labels.txt").write_text("tampered")
    face = Told()
    run(board, bundle, tmp_path / "b.json", address=address, face=face)
    labels = (board.home / "own/bundle/labels.txt").read_bytes()
    assert face.has("copying 1 files") and labels == (bundle / "labels.txt").read_bytes()


def test_a_user_name_with_words_of_a_shell_starts_no_client(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    """A ProxyCommand with %r would hand it to one."""
    board.client("key", f"ProxyCommand sh -c 'echo %r; touch {tmp_path}/canary'")
    for user in ("$(touch canary)", "a;b", "a'b", 'a"b', "a`b`", "a\nb"):
        with pytest.raises(UsageError, match="no user has such a name"):
            run(
                board,
                bundle,
                tmp_path / "kit.json",
                address=f"ssh://{quote(user)}@127.0.0.1:{board.port}",
            )
    assert not (tmp_path / "canary").exists() and board.commands() == set()


def test_a_user_name_with_a_space_is_only_a_name(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    error = fails(
        board, bundle, tmp_path / "kit.json", address=f"ssh://no%20body@127.0.0.1:{board.port}"
    )
    assert "does not accept a key" in str(error)
    assert "no body" in board.log.read_text() and "'no body@127.0.0.1'" in str(error)


# The connection is cut


@pytest.mark.parametrize("how", ["the line", "the session"])
def test_a_run_outlives_the_connection_and_its_result_is_collected(
    how: str, board: Board, scripted: Callable[[str], Path], tmp_path: Path
) -> None:
    line, face, found = Line(board.port), Told(), []
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{line.port}"
    known = board.folder / "client/known_hosts"
    known.write_text(known.read_text().replace(str(board.port), str(line.port)))
    bundle = scripted(SLOW.format(seconds=1.5))

    def work() -> None:
        found.append(run(board, bundle, tmp_path / "kit.json", address=address, face=face))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: list(board.tmp.glob("edgedistill-*/run-*/words")))
    if how == "the line":
        line.cut()
        time.sleep(0.5)
        line.mend()
    else:
        for pid in board.sessions():
            os.kill(pid, signal.SIGKILL)
    thread.join(timeout=30)
    line.close()
    assert found and found[0]["schema"] == "edgedistill.kit/1"
    assert face.has("was lost; what runs there goes on") and face.has("again")
    assert ours(board) == [] and running(board) == []


def line_to(board: Board) -> tuple[Line, str]:
    """A line that can be cut, and the address at its end."""
    line, known = Line(board.port), board.folder / "client/known_hosts"
    known.write_text(known.read_text().replace(str(board.port), str(line.port)))
    return line, f"ssh://{getpass.getuser()}@127.0.0.1:{line.port}"


def test_copying_goes_on_after_a_cut_from_where_it_stopped(board: Board, tmp_path: Path) -> None:
    (line, address), face = line_to(board), Told()
    line.break_after, line.rate = 2_500_000, 2_000_000  # what lies in buffers is lost with the line
    bundle = small_bundle(tmp_path / "b")
    (bundle / "README.md").write_bytes(os.urandom(3_000_000))
    assert run(board, bundle, tmp_path / "kit.json", address=address, face=face)["rows"] == []
    assert face.has("was lost") and line.break_after is None
    assert line.sent < 4_500_000, "what had come did not travel again"
    line.close()


def test_a_part_that_is_not_how_the_file_begins_is_not_gone_on_from(
    board: Board, tmp_path: Path
) -> None:
    address = f"{board.address}{quote(str(board.home / 'own'))}"
    bundle = small_bundle(tmp_path / "one")
    run(board, bundle, tmp_path / "a.json", address=address)
    labels = board.home / "own/bundle/labels.txt"
    labels.unlink()
    labels.with_name("labels.txt.part").write_bytes(b"no")
    run(board, bundle, tmp_path / "b.json", address=address)
    assert labels.read_bytes() == (bundle / "labels.txt").read_bytes()
    assert not labels.with_name("labels.txt.part").exists()


def test_a_slow_line_is_not_taken_for_a_lost_one(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "SILENCE_S", 4.0)
    (line, address), face = line_to(board), Told()
    bundle = small_bundle(tmp_path / "b")
    (bundle / "README.md").write_bytes(os.urandom(900_000))
    with SshTarget(parse_address(address), face) as target:
        target.look(("numpy",))
        line.rate = 130_000
        begun = time.monotonic()
        assert target.run(bundle, ["info"], tmp_path / "kit.json", face)["rows"] == []
        assert time.monotonic() - begun > 6 and not face.has("was lost")
    line.close()


def test_a_line_over_which_nothing_comes_through_is_given_up(
    board: Board, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second call fails, which is each that brings a file; the ones between say how much is missing."""
    monkeypatch.setattr(calls, "PAUSES_S", (0.01,))
    monkeypatch.setattr(calls, "MOST_DROPS", 3)
    count = tmp_path / "count"
    write_program(
        board.bin / "python3",
        f"echo >> {count}; n=$(wc -l < {count})\n"
        'case "$1" in -I) [ $n -gt 2 ] && [ $((n % 2)) -eq $(cat "$0.odd") ] && exit 255;; esac\n'
        f'exec {PYTHON} "$@"\n',
    )
    # the interpreters that `look` tries are started by the same name
    with SshTarget(parse_address(board.address), Told()) as target:
        (board.bin / "python3.odd").write_text("2")
        target.look(("numpy",))
        lines = len(count.read_text().splitlines())
        (board.bin / "python3.odd").write_text(str((lines + 2) % 2))
        with pytest.raises(StoppedError, match="was lost 3 times in a row before anything came"):
            target.run(bundle, ["info"], tmp_path / "kit.json", Told())
    assert len(count.read_text().splitlines()) < lines + 12 and not ours(board)


def test_a_board_that_does_not_come_back_is_given_up_with_the_place_of_the_result(
    board: Board, scripted: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "RECONNECT_S", 1.0)
    line, face = Line(board.port), Told()
    known = board.folder / "client/known_hosts"
    known.write_text(known.read_text().replace(str(board.port), str(line.port)))
    bundle, errors = scripted(SLOW.format(seconds=1.5)), []

    def work() -> None:
        try:
            address = f"ssh://{getpass.getuser()}@127.0.0.1:{line.port}"
            run(board, bundle, tmp_path / "kit.json", address=address, face=face)
        except StoppedError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: list(board.tmp.glob("edgedistill-*/run-*/words")))
    line.cut()
    thread.join(timeout=30)
    (error,) = errors
    assert "was not heard of for 1 s" in str(error) and "edgedistill record" in str(error)
    place = next(w for w in str(error).split() if w.endswith("kit.json"))
    until(Path(place).is_file)
    assert json.loads(Path(place).read_text())["schema"] == "edgedistill.kit/1", (
        "the run went on to its end"
    )
    line.mend()
    command = next(x for x in face.lines if "something is left" in x).partition("run  ")[2]
    subprocess.run(["sh", "-c", command], check=False, env={**os.environ}, timeout=20)
    assert "pkill -f" in command and "rm -rf" in command
    line.close()


def test_ctrl_c_ends_the_run_and_removes_its_folder(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgedistill", "bench", str(bundle), "--target", board.address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    until(lambda: list(board.tmp.glob("edgedistill-*/run-*/words")))
    until(lambda: running(board))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "interrupted" in err, err
    assert "something is left" not in err and "Traceback" not in err
    assert ours(board) == [] and running(board) == []


@pytest.mark.parametrize("kind", ["of another user", "open to all", "a link"])
def test_a_folder_that_somebody_made_under_our_name_is_not_ours(
    kind: str, board: Board, bundle: Path, tmp_path: Path
) -> None:
    face = Told()
    with SshTarget(parse_address(board.address), face) as target:
        theirs = board.tmp / f"edgedistill-{target._token}-0"
        (theirs / "bundle").mkdir(parents=True, mode=0o700)
        theirs.chmod(0o700)
        if kind == "a link":
            theirs.rename(tmp_path / "elsewhere")
            theirs.symlink_to(tmp_path / "elsewhere")
        elif kind == "open to all":
            theirs.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(theirs, 65534, 65534)
        else:
            pytest.skip("only root can give a folder away")
        assert target.run(bundle, ["info"], tmp_path / "kit.json", face)["rows"] == []
        assert len(ours(board)) == 2 and not list((theirs / "bundle").iterdir())
    assert ours(board) == [theirs.name], "and what is theirs is not removed"


def test_a_clock_that_is_set_meanwhile_does_not_end_a_run(
    board: Board, scripted: Callable[[str], Path], tmp_path: Path
) -> None:
    """A Raspberry Pi has no clock of its own, and jumps by months when it finds the network."""
    step = "import time as c; b, t = c.monotonic(), c.time; c.time = lambda: t() + (c.monotonic() - b > 1) * 1e7"
    bare(
        board,
        f'[ "$1" = -I ] && [ "$4" = -c ] && exec {PYTHON} -I -S -u -c "{step}\n$5"',
        f'exec {PYTHON} "$@"',
    )
    bundle = scripted(SLOW.format(seconds=2.5))
    document = run(board, bundle, tmp_path / "kit.json", "info")
    assert document["schema"] == "edgedistill.kit/1"


def test_two_jobs_on_one_board_do_not_time_each_other(
    board: Board, scripted: Callable[[str], Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = f"note = lambda w: open({str(log)!r}, 'a').write(w + chr(10))\nnote('begins')\n"
    bundle = scripted(code + SLOW.format(seconds=3) + "note('ends')\n")
    faces, documents = (Told(), Told()), []

    def work(face: Told) -> None:
        out = tmp_path / f"{faces.index(face)}.json"
        documents.append(run(board, bundle, out, face=face))

    first, second = (threading.Thread(target=work, args=(face,)) for face in faces)
    first.start()
    until(log.exists)
    second.start()
    for thread in (first, second):
        thread.join(timeout=60)
    assert len(documents) == 2 and log.read_text().split() == ["begins", "ends"] * 2
    assert faces[1].has("another job of yours is at work") and not faces[0].has("another job")
    assert board.left() == []


def test_what_one_failing_model_left_comes_home_with_its_reason(
    board: Board, tmp_path: Path
) -> None:
    """One file of the bundle needs an operator that no runtime has."""
    bundle = two_models(tmp_path / "two")
    out = tmp_path / "kit.json"
    document = run(board, bundle, out, *QUICK)
    assert json.loads(out.read_text()) == document
    assert [row["model"] for row in document["rows"]] == ["float32"]  # type: ignore[attr-defined]
    (failure,) = document["failures"]  # type: ignore[misc]
    assert failure["model"] == "other" and "NoSuch" in failure["text"]
    with pytest.raises(EdgedistillError, match=r"(?s)the kit could not bench on the board.*NoSuch"):
        run(board, bundle, out, *QUICK, "--model", "other")
    assert json.loads(out.read_text())["failures"], "the document is there also then"


# Faults of the way there


def test_another_host_key_than_the_known_one_is_refused_and_nothing_is_sent(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    board.know("other_host")
    error = str(fails(board, bundle, tmp_path / "kit.json"))
    known = board.folder / "client/known_hosts"
    assert "another machine answers under its name" in error and f"{known}, line 1" in error
    assert board.commands() == set()
    command = next(p for p in error.split("run  ") if p.startswith("ssh-keygen")).partition(
        "  and"
    )[0]
    assert f"-R '[127.0.0.1]:{board.port}'" in command
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert known.read_text() == "", "the one command that helps"


def test_an_unknown_board_is_not_trusted_by_itself(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    board.know(None)
    error = str(fails(board, bundle, tmp_path / "kit.json"))
    assert (
        "is not known here yet" in error
        and f"run  ssh -p {board.port} {getpass.getuser()}@127.0.0.1" in error
    )
    assert board.commands() == set()


def test_host_keys_are_checked_also_where_the_users_configuration_turns_that_off(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    board.client("key", "StrictHostKeyChecking no")
    board.know("other_host")
    assert "another machine answers" in str(fails(board, bundle, tmp_path / "kit.json"))
    board.know(None)
    assert run(board, bundle, tmp_path / "kit.json")["rows"] == []
    assert (board.folder / "client/known_hosts").read_text(), (
        "taken in once, and from then on held to"
    )


def test_a_key_that_is_not_accepted_names_ssh_copy_id_and_asks_for_no_password(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    board.client("stranger")
    error = fails(board, bundle, tmp_path / "kit.json")
    assert isinstance(error, UsageError)
    assert f"run  ssh-copy-id -p {board.port} {getpass.getuser()}@127.0.0.1" in str(error)


def test_a_key_with_a_passphrase_and_no_agent_names_ssh_add(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    key = board.folder / "client/key"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True)
    error = fails(board, bundle, tmp_path / "kit.json")
    assert isinstance(error, UsageError)
    assert "has a passphrase" in str(error) and "run  ssh-add" in str(error)


def test_a_configuration_that_waits_is_told(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONFIGURED_S", 0.3)
    board.client("key", 'Match exec "sleep 3"', "Host *")
    with pytest.raises(StoppedError, match=r"did not read its configuration .* run  ssh -vvG "):
        SshTarget(parse_address(board.address), Told())


def test_a_long_temporary_folder_is_no_place_for_the_socket(
    board: Board, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert run(board, bundle, tmp_path / "kit.json")["rows"] == []
    monkeypatch.setattr(ssh, "MOST_SOCKET", 20)
    with pytest.raises(UsageError, match=r"too long for the socket.*TMPDIR"):
        SshTarget(parse_address(board.address), Told())


def test_nobody_listening_and_no_such_host_say_what_to_do(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kit.json"
    board.stop()
    error = fails(board, bundle, out)
    assert "takes no ssh connection" in str(error) and "systemctl enable --now ssh" in str(error)
    error = fails(board, bundle, out, address="ssh://me@no-such-board.invalid")
    assert "no machine called no-such-board.invalid" in str(error) and "ping -c 1" in str(error)


def test_a_workstation_without_a_client_says_so(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sudo apt-get install openssh-client"):
        SshTarget(parse_address("ssh://me@board"), Told())


# Faults of the board


def bare(board: Board, *lines: str, name: str = "python3") -> None:
    """Restart a board whose sessions have nothing but one Python, if any."""
    board.stop()
    for program in board.bin.iterdir():
        program.unlink()
    if lines:
        write_program(board.bin / name, "\n".join(lines) + "\n")
    board.environment["PATH"] = str(board.bin)
    board.start()


def test_a_board_without_python_says_how_to_get_it(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    bare(board)
    error = str(fails(board, bundle, tmp_path / "kit.json"))
    assert "has no python3" in error
    assert (
        f"run  ssh -t -p {board.port} {getpass.getuser()}@127.0.0.1 'sudo apt-get install -y python3-venv'"
        in error
    )


def test_a_python_that_is_too_old_is_named(board: Board, bundle: Path, tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 6, 9, 'final', 0)"
    bare(
        board,
        f'[ "$1" = -c ] && code=$2 && shift 2 && exec {PYTHON} -c "{old}\n$code" "$@"',
        f'exec {PYTHON} "$@"',
    )
    error = str(fails(board, bundle, tmp_path / "kit.json"))
    assert "is 3.6.9, and the kit needs 3.8 or newer" in error and "build_engine.sh" in error


def test_a_newer_python_beside_an_old_one_is_found(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    old = "import sys; sys.version_info = (3, 6, 9, 'final', 0)"
    bare(
        board,
        f'[ "$1" = -c ] && code=$2 && shift 2 && exec {PYTHON} -c "{old}\n$code" "$@"',
        f'exec {PYTHON} "$@"',
    )
    write_program(board.bin / "python3.9", f'exec {PYTHON} "$@"\n')
    assert run(board, bundle, tmp_path / "kit.json")["rows"] == []


def test_what_the_kit_lacks_is_named_with_the_command_that_brings_it(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    import numpy

    out = tmp_path / "kit.json"
    bare(board, f'exec {PYTHON} -S "$@"')
    error = str(fails(board, bundle, out))
    assert "has no numpy" in error
    made = "python3 -m venv --system-site-packages ~/.ontarget && ~/.ontarget/bin/pip install numpy onnxruntime"
    assert f"'{made}'" in error
    only = tmp_path / "only"
    only.mkdir()
    site = Path(numpy.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (only / name).symlink_to(site / name)
    bare(
        board, f"PYTHONPATH={shlex.quote(str(only))}", "export PYTHONPATH", f'exec {PYTHON} -S "$@"'
    )
    error = str(fails(board, bundle, out, "check"))
    assert "has no onnxruntime" in error and f"'{made}'" in error
    error = str(fails(board, bundle, out, "bench", "--provider", "engine"))
    assert "has no tensorrt" in error and "python3-libnvinfer" in error
    # what that command makes is found by itself
    write_program(board.home / ".ontarget/bin/python3", f'exec {PYTHON} "$@"\n')
    assert run(board, bundle, out, "check")["check"]["ok"]  # type: ignore[index]


def test_a_package_that_cannot_be_loaded_is_told_with_its_reason(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    (broken / "onnxruntime").mkdir(parents=True)
    (broken / "onnxruntime/__init__.py").write_text("raise ImportError('built against numpy 1')\n")
    program = f"PYTHONPATH={shlex.quote(str(broken))} exec {PYTHON}"
    bare(board, f'{program} "$@"')
    error = str(fails(board, bundle, tmp_path / "kit.json", "check"))
    assert "onnxruntime of" in error and "cannot be loaded (built against numpy 1)" in error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_and_one_that_is_read_only_are_told_before_anything_is_copied(
    board: Board, bundle: Path, tmp_path: Path, small_disk: Path
) -> None:
    out, address = tmp_path / "kit.json", f"{board.address}{small_disk}/bundle"
    error = fails(board, bundle, out, address=address)
    assert isinstance(error, StoppedError)
    assert (
        "no space on the board" in str(error)
        and "1 MB free" in str(error)
        and "df -h" in str(error)
    )
    assert not [p for p in small_disk.rglob("*") if p.is_file()]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = fails(board, bundle, out, address=f"{board.address}{small_disk}/other")
    assert "mounted read-only" in str(error) and "mount -o remount,rw /" in str(error)


def test_a_disk_that_fills_up_while_a_file_arrives_is_told_and_nothing_stays(
    board: Board, bundle: Path, tmp_path: Path
) -> None:
    session = board.folder / "session"
    session.write_text(session.read_text().replace("exec env", "ulimit -f 20\nexec env"))
    assert "no space on the board" in str(fails(board, bundle, tmp_path / "kit.json"))


def test_a_folder_of_somebody_else_is_refused(board: Board, bundle: Path, tmp_path: Path) -> None:
    error = fails(board, bundle, tmp_path / "kit.json", address=f"{board.address}/proc/none")
    assert "lets nothing be written to /proc/none" in str(error) and "ls -ld" in str(error)


# How a run ends


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (
            "import sys; sys.exit('ontarget: why')",
            StoppedError,
            "the kit could not info on the board .*why",
        ),
        (
            "import sys; print('w', file=sys.stderr); sys.exit(2)",
            UsageError,
            "the kit could not info .*: w$",
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            StoppedError,
            "killed on the board .*memory.*--model NAME",
        ),
        ("import os; os.kill(os.getpid(), 11)", StoppedError, "ended on the board .*signal 11"),
        ("import time; time.sleep(60)", StoppedError, "did not end within 1 s .*--quick"),
        (
            "import argparse; argparse.ArgumentParser().parse_args()",
            UsageError,
            "of another version.*unrecognized",
        ),
        ("pass", StoppedError, "wrote no document"),
    ],
)
def test_each_end_of_the_kit_is_told_in_one_paragraph(
    code: str,
    kind: type[EdgedistillError],
    words: str,
    board: Board,
    scripted: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(kind, match=f"(?s){words}"),
        SshTarget(
            parse_address(board.address), Told(), limit_s=1 if "sleep" in code else 60
        ) as target,
    ):
        target.run(scripted(code), ["info"], tmp_path / "kit.json", Told())
    assert ours(board) == [] and running(board) == []


def test_a_document_of_another_kit_is_told_as_such(
    board: Board, scripted: Callable[[str], Path], tmp_path: Path
) -> None:
    code = SLOW.format(seconds=0).replace("kit/1", "kit/2")
    with pytest.raises(DocumentError, match=r"of another version.*make the bundle again"):
        run(board, scripted(code), tmp_path / "kit.json")


def test_words_of_the_kit_steer_no_terminal_here(
    board: Board, scripted: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = scripted(
        "import sys; sys.stderr.write('\\x1b[2J\\x1b]0;title\\x07bad\\n'); sys.exit(2)"
    )
    with pytest.raises(UsageError, match="bad") as caught:
        run(board, bundle, tmp_path / "kit.json")
    assert "\x1b" not in str(caught.value) and "\x07" not in str(caught.value)
