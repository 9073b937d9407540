"""Pipeline step: publish the model that the gate let pass, and make it the champion."""
