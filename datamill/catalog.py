"""Every artifact of the pipeline and its path; a stage's module says who writes and who reads it."""

from datamill.stage import Artifact, Plot

INGEST_SAMPLES = Artifact("data/ingest/samples", dataset=True)  # parts
INGEST_REJECTS = Artifact("data/ingest/rejects.parquet")  # items that could not become a sample

EXTRACT_FEATURES = Artifact("data/extract/features")  # one look at every payload; a file per part of the samples

VALIDATE_SCHEMA = Artifact("data/validate/schema.json", logged=True)  # profiled expectations
VALIDATE_VERDICTS = Artifact("data/validate/verdicts.parquet")  # ledger
VALIDATE_DOCS = Artifact("data/validate/docs", logged=True)  # Great Expectations' Data Docs, HTML

CLEAN_LEDGER = Artifact("data/clean/ledger.parquet")
CLEAN_REPAIRS = Artifact("data/clean/repairs")  # parts: new payloads of repaired samples

SPLIT_ASSIGNMENTS = Artifact("data/split/assignments.parquet")  # ledger + split, fold

AUDIT_LEDGER = Artifact("data/audit/ledger.parquet")  # ledger + split, label, weight, quality, suggestion
AUDIT_SUSPECTS = Artifact("reports/audit/suspects.csv", logged=True)  # most suspicious labels, worst first

PREPROCESS_STATE = Artifact("models/preprocess/preprocessor.json", logged=True)

AUGMENT_POLICY = Artifact("data/augment/policy.json", logged=True)
AUGMENT_COPIES = Artifact("data/augment/copies")  # parts
AUGMENT_PREVIEW = Artifact("reports/augment/preview.png", logged=True)

SYNTHESIZE_SAMPLES = Artifact("data/synthesize/samples")  # parts: what passed the gate
SYNTHESIZE_ADMISSIONS = Artifact("data/synthesize/admissions.parquet")  # ledger of candidates
SYNTHESIZE_SHEET = Artifact("reports/synthesize/sheet.png", logged=True)

BALANCE_PLAN = Artifact("data/balance/plan.parquet")  # ledger + split, label, weight, draw
BALANCE_RESAMPLED = Artifact("data/balance/resampled")  # parts

SHARD_SHARDS = Artifact("data/shard/shards")  # native shards: train, validation, test
SHARD_LEDGER = Artifact("data/shard/ledger.parquet")  # ledger + split, row
SHARD_EXPORTS = Artifact("data/shard/exports")  # a folder per foreign format; empty unless asked for

TRAIN_NETWORK = Artifact("models/train/network.json", logged=True)  # architecture, input, classes
TRAIN_BEST = Artifact("models/train/best.safetensors")
TRAIN_LAST = Artifact("models/train/last.safetensors")
TRAIN_HISTORY = Artifact(
    "reports/train/history.csv", in_git=True, logged=True, plot=Plot(x="epoch", y="validation_loss")
)
TRAIN_TIMES = Artifact("reports/measured/train.json", measured=True, logged=True)

DIAGNOSE_FINDINGS = Artifact("data/diagnose/findings.json", logged=True)  # what every check saw, durations left out
DIAGNOSE_REPORT = Artifact("reports/measured/diagnosis.md", measured=True, logged=True)

EVALUATE_PREDICTIONS = Artifact("data/evaluate/predictions.parquet")
EVALUATE_CONFUSION = Artifact(
    "reports/evaluate/confusion.csv",
    in_git=True,
    logged=True,
    plot=Plot(x="actual", y="predicted", template="confusion"),
)
EVALUATE_CALIBRATION = Artifact(
    "reports/evaluate/calibration.csv",
    in_git=True,
    logged=True,
    plot=Plot(x="confidence", y="accuracy", template="linear"),
)
EVALUATE_SLICES = Artifact("reports/evaluate/slices.csv", in_git=True, logged=True)
EVALUATE_MISTAKES = Artifact("reports/evaluate/mistakes.png", logged=True)
EVALUATE_REFERENCE = Artifact("models/evaluate/reference")  # what the model was measured on, to compare new data with

EXPORT_EXAMPLE = Artifact("models/export/example.npy")  # one input of the model, shape (1, ...)
EXPORT_MODEL = Artifact("models/export/model.onnx", example=EXPORT_EXAMPLE.path)
EXPORT_INTERFACE = Artifact("models/export/interface.json", logged=True)  # input, output, classes, example
EXPORT_TIMES = Artifact("reports/measured/export.json", measured=True, logged=True)
EXPORT_CARDS = Artifact("reports/measured/cards", measured=True, logged=True)  # model and data card, Markdown and HTML
