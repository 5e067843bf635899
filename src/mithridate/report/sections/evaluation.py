"""An evaluation as a report: tables, figures, sentences, headline."""

from dataclasses import asdict, replace

from mithridate.evaluation.measurement import Evaluation
from mithridate.poisoning.goals import PhraseToClass, RetrievalGoal, TriggerToClass
from mithridate.report.document import Hit, Report, Retrieval, Table, Triggered
from mithridate.report.sections.classification import accuracy_table, backdoor_tables, probe_table, targeted_tables
from mithridate.report.sections.epochs import by_epoch
from mithridate.report.sections.headline import headlines
from mithridate.report.sections.retrieval import captions_figure, captions_tables, phrase_table, utility_table
from mithridate.report.sections.sentences import strength_table, summary, title
from mithridate.report.sections.shift import density_figures, shift_figures, shift_table
from mithridate.report.sections.warnings import worded


def evaluation_report(e: Evaluation) -> Report:
    """Everything that was measured, for people. Nothing is measured or drawn at random here."""
    captions = [goal for goal in e.goals if isinstance(goal, RetrievalGoal)]
    several, epochs = len(captions) > 1, by_epoch(e)
    figures = [captions_figure(e, goal, several=several) for goal in captions]
    figures += [*density_figures(e), *shift_figures(e), *([] if epochs is None else [epochs[1]])]
    tables = [strength_table(e), accuracy_table(e), *goal_tables(e), utility_table(e), shift_table(e)]
    tables += [] if epochs is None else [epochs[0]]
    wanted = {goal.key: goal.target for goal in e.goals if isinstance(goal, TriggerToClass)}
    return Report(
        title=title(e),
        summary=summary(e),
        tables=tuple(table for table in tables if table is not None),
        figures=tuple(figures),
        retrievals=tuple(
            Retrieval(
                shown.query,
                {
                    model: tuple(Hit(i.thumbnail, i.labels, i.similarity, i.is_target) for i in images)
                    for model, images in shown.images.items()
                },
            )
            for shown in e.examples
        ),
        triggered=tuple(
            Triggered(t.thumbnail, e.goal_name(t.goal), t.label, t.taken, wanted[t.goal]) for t in e.triggered
        ),
        warnings=worded(replace(w, values=_readable(e, w.values)) for w in e.warnings),
        headlines=headlines(e),
        provenance={
            "models": e.provenance.get("encoders", {}),
            "reference": e.reference,
            "test data": None if e.test is None else asdict(e.test),
            "attack": None if e.attack is None else asdict(e.attack),
            "runs": e.runs,
            **{name: value for name, value in e.provenance.items() if name != "encoders"},
        },
    )


def goal_tables(e: Evaluation) -> list[Table]:
    """What was measured of every goal: triggers, single images, phrases, the probe, captions."""
    triggers = [goal for goal in e.goals if isinstance(goal, TriggerToClass)]
    phrases = [goal for goal in e.goals if isinstance(goal, PhraseToClass)]
    captions = [goal for goal in e.goals if isinstance(goal, RetrievalGoal)]
    found = backdoor_tables(e, triggers) if triggers else []
    found += targeted_tables(e) if e.predictions is not None else []
    found += [phrase_table(e, goal, several=len(phrases) > 1) for goal in phrases]
    probe = probe_table(e, triggers)
    found += [] if probe is None else [probe]
    for goal in captions:
        found += captions_tables(e, goal, several=len(captions) > 1)
    return found


def _readable(e: Evaluation, values: dict) -> dict:
    """The values of a warning, its goal as it reads to a person."""
    return {**values, "goal": e.goal_name(str(values["goal"]))} if "goal" in values else values
