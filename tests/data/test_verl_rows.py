"""phase1.data.verl_rows: what verl would train on."""

import pytest

from tests.data.prepared import prepare, record


@pytest.mark.slow  # imports verl
def test_a_template_that_verl_would_train_wrongly_on_is_refused(tmp_path, monkeypatch, base_model):
    from phase1.data.verl_rows import check_rows

    made = prepare(tmp_path, [record(i) for i in range(8)], monkeypatch=monkeypatch)
    path = tmp_path / "out" / "sft_train.parquet"
    checked = check_rows(path, base_model, 512, 0)
    if isinstance(checked, str):
        pytest.skip(checked)
    assert checked == {"rows": len(made["train"]), "compared": len(made["train"])}
    with pytest.raises(Exception, match=r"max_length|trained token"):
        check_rows(path, base_model, 16, 0)
