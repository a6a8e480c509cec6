"""What a service raises when its input cannot be what was written (design 4.4.2)."""


class CorruptInputError(Exception):
    """A record that breaks its chain or link, does not decode, or would make funds negative.

    Skipping it would be losing, so the partition stops with an alarm and nothing beyond it is processed. The message
    says what is wrong; topic, partition and offset are added by whoever read the record.
    """
