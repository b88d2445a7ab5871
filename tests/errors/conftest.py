"""What the tests of messages share."""

import pytest

from microsr.cli import main


@pytest.fixture
def refused(capsys):
    """Gives the one line with which a command fails, without its step."""

    def run(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert ended.value.code == 1, said
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if ": error: " in line]
        assert len(lines) == 1 and said.splitlines()[-1] == lines[0], said
        return lines[0].partition(": error: ")[2]

    return run
