"""The trends of loss curves."""

from keras_vae.evaluation.diagnostics.curves import fit_trend


def test_the_bend_of_a_short_curve_is_not_noise() -> None:
    # Losses of a real training of three epochs, which was far from its end.
    trend = fit_trend([500.5, 390.9, 362.0])
    assert trend is not None
    assert trend.slope > 10 * trend.slope_error
    noisy = fit_trend([362.0, 391.0, 361.0])
    assert noisy is not None
    assert noisy.slope < noisy.slope_error
