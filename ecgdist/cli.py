"""The command line: one command per job. Every command is a thin shell around a function of the package."""

from __future__ import annotations

from typing import Any

import typer
import typer.core

from ecgdist.commands import beforehand, clusters, corpora, kubernetes, labels, training, use


class _PretrainByDefault(typer.core.TyperGroup):
    """``plan CONFIG.yaml`` is ``plan pretrain CONFIG.yaml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["pretrain", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    help="Pretrain ECG foundation models on a Ray cluster, and measure what they have learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plan_app = typer.Typer(
    cls=_PretrainByDefault,
    help="What a job will take: hours, bytes, memory and money. `plan CONFIG.yaml` is `plan pretrain CONFIG.yaml`.",
    no_args_is_help=True,
)
jobs_app = typer.Typer(
    help="Jobs on a Ray cluster, and runs that train somewhere else.", no_args_is_help=True
)
k8s_app = typer.Typer(help="Manifests for Kubernetes.", no_args_is_help=True)

app.add_typer(plan_app, name="plan")
app.add_typer(jobs_app, name="jobs")
app.add_typer(k8s_app, name="k8s")

# In the order of `ecgdist --help`.
app.command("demo")(training.demo)
app.command("pack")(corpora.pack)
plan_app.command("pack")(beforehand.plan_pack)
plan_app.command("pretrain")(beforehand.plan_pretrain)
app.command("doctor")(beforehand.doctor)
app.command("inspect")(corpora.inspect)
app.command("check-leak")(corpora.check_leak)
app.command("pretrain")(training.pretrain)
app.command("finetune")(labels.finetune)
app.command("sweep")(labels.sweep)
app.command("evaluate")(labels.evaluate)
app.command("benchmark")(labels.benchmark)
app.command("compare")(training.compare)
app.command("fit-head")(labels.fit_head)
app.command("predict")(use.predict)
app.command("embed")(use.embed)
app.command("export")(use.export)
app.command("submit")(clusters.submit)
jobs_app.command("list")(clusters.jobs_list)
jobs_app.command("logs")(clusters.jobs_logs)
jobs_app.command("stop")(clusters.jobs_stop)
k8s_app.command("render")(kubernetes.k8s_render)
k8s_app.command("check")(kubernetes.k8s_check)
app.command("report")(training.report)


def main() -> None:
    """Entry point of the ``ecgdist`` script."""
    app()


if __name__ == "__main__":
    main()
