"""How all figures look, of one run and of many: colours, signs, fonts and lines."""

# Hues of Okabe and Ito (2008), which colour-blind readers can tell apart. One thing, one colour.
TOXIC, CLEAN = "#D55E00", "#56B4E9"
TRUTH, RECOVERED = "#0072B2", "#009E73"
QUIET = "#8C8C8C"
CONTROLS = ("#E69F00", "#CC79A7", QUIET, "#222222")

TRUTH_SIGN, RECOVERED_SIGN = "R*", r"$\hat{\mathrm{R}}$"

# The letters of a word that a figure has room for.
WORD_LETTERS = 18

STYLE = {
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
