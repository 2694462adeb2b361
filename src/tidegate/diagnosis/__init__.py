"""What a model or a file holds that is recurrent, what runs it, and how its gates do: `tg.doctor`."""

from tidegate.diagnosis.doctor import doctor
from tidegate.diagnosis.records import Diagnosis, LayerDiagnosis

__all__ = ["Diagnosis", "LayerDiagnosis", "doctor"]
