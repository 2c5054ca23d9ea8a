"""The report's tables as Markdown: to be read, sent and committed."""

from collections.abc import Iterator

from ssl_pipeline.report import tables, verdict
from ssl_pipeline.report.degradation import worsened
from ssl_pipeline.report.grouped import grouped, grouped_further
from ssl_pipeline.report.judgements import notes, warnings
from ssl_pipeline.report.looked import looked
from ssl_pipeline.report.markdown import markdown
from ssl_pipeline.report.numerals import count
from ssl_pipeline.report.page import Source

BOLD = (
    "Better and worse are said only where an interval excludes zero; such differences are in bold. "
    "Intervals are over subjects and seeds, and not corrected for the number of comparisons."
)


def text(source: Source) -> str:
    """All that the page says of the tasks, less its pictures.

    Raises UserError where a table is of another format version.
    """
    parts = [f"# {source.title or source.name}", verdict.answer(source.judged), BOLD]
    for task in source.tasks:
        parts += _task(source, task)
    return "\n\n".join(parts) + "\n"


def _task(source: Source, task: str) -> Iterator[str]:
    judgements = source.judged[task]
    yield f"## {source.tasks[task].title}"
    if not judgements:
        yield "This task has not been judged yet."
        return
    first = judgements[0].results
    yield verdict.task_sentence(judgements)
    yield (
        f"{count(first['n_train_subjects'], 'labelled subject')} to learn from, "
        f"{count(first['n_test_subjects'], 'subject')} of the split {first['split']} scored."
    )
    for warning in warnings(judgements):
        yield f"**Not to be trusted as it stands.** {warning}"
    shown = [tables.scores(judgements), tables.differences(judgements), *grouped(judgements)]
    shown += [tables.per_class(judgements), *grouped_further(judgements)]
    shown += filter(None, [tables.costs(judgements)])
    said = notes(judgements)
    if worse := source.worse.get(task):
        shown += worsened(worse)
        said += worse["notes"]
    yield from map(markdown, shown)
    yield from dict.fromkeys(filter(None, [*said, looked(source.folder, task)]))
