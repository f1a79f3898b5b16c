"""Eq. (2) of the paper as pure maths: tensors in, tensors out; no file, data set or classifier."""

from quasinat.sparse_coding.adjoint import Adjoint, Identity, Implicit, Unrolled, reconstruct
from quasinat.sparse_coding.admm import ADMM
from quasinat.sparse_coding.auto import Auto, solvers_here
from quasinat.sparse_coding.batch import Batch
from quasinat.sparse_coding.consensus import Consensus
from quasinat.sparse_coding.convolution import convolve, correlate
from quasinat.sparse_coding.coordinate_descent import CoordinateDescent
from quasinat.sparse_coding.dictionary import Dictionary, ImageSource, dictionary_from, history
from quasinat.sparse_coding.dictionary_problem import Learner, LearningState
from quasinat.sparse_coding.filter_update import update_filters
from quasinat.sparse_coding.frequency_split import tikhonov_split
from quasinat.sparse_coding.fused_admm import FusedADMM
from quasinat.sparse_coding.learning import LEARNERS, learn_dictionary
from quasinat.sparse_coding.online import Online
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.proximal import Constraint, project_filters, soft_threshold
from quasinat.sparse_coding.solution import Result, Solution
from quasinat.sparse_coding.solve import SOLVERS, Solver, solve
from quasinat.sparse_coding.solver_card import describe_solver, solver_from
from quasinat.sparse_coding.statistics import Statistics, statistics

__all__ = [
    "ADMM",
    "LEARNERS",
    "SOLVERS",
    "Adjoint",
    "Auto",
    "Batch",
    "Consensus",
    "Constraint",
    "CoordinateDescent",
    "Dictionary",
    "FusedADMM",
    "Identity",
    "ImageSource",
    "Implicit",
    "Learner",
    "LearningState",
    "Online",
    "Result",
    "Solution",
    "Solver",
    "SparseCodingProblem",
    "Statistics",
    "Unrolled",
    "convolve",
    "correlate",
    "describe_solver",
    "dictionary_from",
    "history",
    "learn_dictionary",
    "project_filters",
    "reconstruct",
    "soft_threshold",
    "solve",
    "solver_from",
    "solvers_here",
    "statistics",
    "tikhonov_split",
    "update_filters",
]
