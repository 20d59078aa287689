"""`trainer:`"""

from settings.section import Section


class TrainerSettings(Section):
    pass
