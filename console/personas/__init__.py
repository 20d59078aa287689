"""Simulated users with tastes that the policy does not know."""

from console.personas import tastes
from console.personas.persona import Persona

PERSONAS: dict[str, Persona] = {
    taste.__name__: Persona(name=taste.__name__, taste=taste)
    for taste in (
        tastes.second_person,
        tastes.brief,
        tastes.asks_back,
        tastes.steps,
        tastes.formal,
        tastes.enthusiastic,
    )
}

__all__ = ["PERSONAS", "Persona"]
