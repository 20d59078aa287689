"""`console:`"""

from settings.section import Section


class ConsoleSettings(Section):
    pass
