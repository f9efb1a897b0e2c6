"""phase1/data/output_folder.py: one writer, nothing left of a killed one, a full disk in one line."""

import errno

import pytest

from phase1.data.output_folder import full_disk_told, only_writer
from phase1.files import BadInput


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with only_writer(tmp_path), pytest.raises(BadInput, match="another run writes there"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


def test_what_a_killed_run_left_is_deleted_and_nothing_else(tmp_path):
    for name in (".prepare.1", "prepared"):
        (tmp_path / name).mkdir()
    with only_writer(tmp_path, ".prepare.*"):
        assert [p.name for p in tmp_path.iterdir()] == ["prepared"]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, BadInput), (errno.EDQUOT, BadInput), (errno.EACCES, OSError)]
)
def test_only_a_full_disk_or_quota_is_told_with_the_fix(code, kind):
    with pytest.raises(kind) as e, full_disk_told("make room"):
        raise OSError(code, "text", "out.json")
    assert ("out.json" in str(e.value) and "make room" in str(e.value)) == (kind is BadInput)
