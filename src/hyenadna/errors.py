"""The one error that a user can cause."""


class InputError(ValueError):
    """Bad input: a file, an option or a value that the user can mend.

    The message is one line that says what is wrong, where, the value, and the way out. The command
    line prints it without a traceback and exits with code 2. Anything else that is raised is a
    defect of ours.
    """
