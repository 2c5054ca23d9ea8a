"""A cluster file against the stages: what they cannot use is refused when the file is read."""

import pytest

from ssl_pipeline.errors import UserError
from stages.core.dispatch import load_cluster


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("stages: {pretrian: {}}", "stages.pretrian is not known: did you mean pretrain?"),
        ("stages: {download: {}}", "stages.download is not known"),
        (
            "stages: {probe: {nodes: 2}}",
            "probe asks for 2 nodes: only preprocess and pretrain use several, give it 1 and more",
        ),
        (
            "stages: {preprocess: {nodes: 3, tasks_per_node: 2}}",
            "preprocess asks for 2 tasks_per_node: only pretrain runs as several tasks",
        ),
        ("defaults: {tasks_per_node: 2}\nstages: {probe: }", "probe asks for 2 tasks_per_node"),
        (
            "stages: {pretrain: {array_size: 2}}",
            "pretrain asks for an array of 2: only probe and finetune have cells to divide",
        ),
    ],
)
def test_what_a_stage_cannot_use_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_cluster(str(path))
    assert f"{path}: {sentence}" in str(error.value) and "\n" not in str(error.value)


def test_stages_of_workers_and_ranks_may_have_several_nodes(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "stages: {preprocess: {nodes: 3}, pretrain: {nodes: 2, tasks_per_node: 4}, "
        "finetune: {array_size: 8}}"
    )
    cluster = load_cluster(str(path))
    assert cluster and list(cluster.stages) == ["preprocess", "pretrain", "finetune"]
