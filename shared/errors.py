"""The errors Sightline raises on purpose; each message says what is wrong, with which thing, and the cure."""


class SightlineError(Exception):
    """Base of every error that is meant for a person to read."""


class InputError(SightlineError):
    """A command was asked for something that cannot be."""


class SettingsError(SightlineError):
    """line.yaml or a SIGHTLINE_ variable is wrong."""


class MessageError(SightlineError):
    """A message is malformed, truncated or foreign and is refused."""


class SourceError(SightlineError):
    """A camera, video file or picture folder cannot be opened or read."""


class BundleError(SightlineError):
    """A model bundle is missing, damaged or does not fit its configuration."""


class PictureError(SightlineError):
    """A picture file cannot be read as a picture."""


class DatasetError(SightlineError):
    """A data set's folder, masks or lists are not as they must be."""


class AlreadyRunningError(SightlineError):
    """The same line is already running on this machine."""


class StoreAwayError(SightlineError):
    """Redis cannot be reached, or does not answer in time; what needs it can be tried again later."""


class StoreRefusedError(SightlineError):
    """Redis works but refuses this one record: its keys hold something else, or the record is malformed."""


class OrderRefusedError(SightlineError):
    """The running line will not do what it was asked, or does not answer."""
