"""Statistics over trials: how sure a mean is, whether two methods differ, how they rank over tasks.

Nothing here knows about records or pages: numbers in, numbers out. Functions import numpy and scipy when called.
"""

from bench.analysis.stats.anytime import Reach, area_under, first_reach, median_reach
from bench.analysis.stats.correlation import rank_correlation
from bench.analysis.stats.equivalence import Equivalence, equivalence
from bench.analysis.stats.importance import Effects, Importance, grid_effects, grid_importance, sample_importance
from bench.analysis.stats.intervals import (
    ENOUGH,
    Interval,
    bootstrap_interval,
    half_widths,
    mean_interval,
    seed_interval,
    share_interval,
)
from bench.analysis.stats.normal import CLEARLY, normalised, normalised_interval
from bench.analysis.stats.pairs import Paired, compare_all, holm, holm_adjusted, paired_test
from bench.analysis.stats.planning import seeds_to_detect, spread_limit
from bench.analysis.stats.ranks import Ranking, critical_difference, rank_methods
from bench.analysis.stats.strata import Profile, interquartile_mean, performance_profile, probability_of_improvement

__all__ = [
    "CLEARLY",
    "ENOUGH",
    "Effects",
    "Equivalence",
    "Importance",
    "Interval",
    "Paired",
    "Profile",
    "Ranking",
    "Reach",
    "area_under",
    "bootstrap_interval",
    "compare_all",
    "critical_difference",
    "equivalence",
    "first_reach",
    "grid_effects",
    "grid_importance",
    "half_widths",
    "holm",
    "holm_adjusted",
    "interquartile_mean",
    "mean_interval",
    "median_reach",
    "normalised",
    "normalised_interval",
    "paired_test",
    "performance_profile",
    "probability_of_improvement",
    "rank_correlation",
    "rank_methods",
    "sample_importance",
    "seed_interval",
    "seeds_to_detect",
    "share_interval",
    "spread_limit",
]
