"""What a user can cause. The command line prints these as one sentence and exits with code 1."""


class MithridateError(Exception):
    """Base of all errors that name a wrong input: what was expected, what came, what to do."""


class DataError(MithridateError):
    """A data set cannot be read as it is."""


class AttackError(MithridateError):
    """An attack cannot be planned on these pairs."""


class EncoderError(MithridateError):
    """A model cannot be loaded, or does not fit what it is used with."""


class FilterError(MithridateError):
    """A detector, a threshold or a keep-list does not fit these pairs."""


class EvaluationError(MithridateError):
    """A measurement is not defined on this input."""


class InspectionError(MithridateError):
    """A model cannot be inspected or repaired with these inputs."""


class StudyError(MithridateError):
    """A study file, or what a folder holds of a study, cannot be used as it is."""


class PluginError(MithridateError):
    """A plugin cannot be loaded, or what it exports breaks the contract of its kind."""


class EngineError(MithridateError):
    """Work cannot be done where it was to be done, as on a Ray cluster, or a part of it failed."""


class OutputError(MithridateError):
    """A folder exists already, or cannot be written."""


def reason(error: BaseException) -> str:
    """The first sentence of what an error says, else its type: what a message can quote of another library's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]
