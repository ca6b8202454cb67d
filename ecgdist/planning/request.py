"""From what a user says of speeds, network and price to what a plan reckons with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ecgdist.errors import ConfigError
from ecgdist.planning.communication import Network
from ecgdist.planning.estimate import Circumstances
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.measure import measure_training
from ecgdist.planning.rates import CPU_CORE, Rate, StreamRate, choose_rate, stream_rate
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.plan import with_stage
from ecgdist.storage import Location


@dataclass(frozen=True)
class PlanRequest:
    """What is known beside the configuration; None leaves a value to measurements and assumptions.

    Attributes:
        gpu: kind of a worker's GPU; None: workers are CPU cores.
        rate: ECG/s of one worker.
        measure: whether to measure that here, on one core.
        mfu: share of the GPU's peak.
        stream_rate: ECG/s of one worker's stream.
        rows: ECGs that will be trained on, for a corpus that is not there yet.
        ecg_bytes: of one of them in the corpus.
        network_gbit: Gbit/s of a link.
        latency_us: microseconds of a message.
        storage_gbit: Gbit/s that storage gives in all.
        price_per_gpu_hour: of one worker's hour.
    """

    gpu: str | None = None
    rate: float | None = None
    measure: bool = False
    mfu: float | None = None
    stream_rate: float | None = None
    rows: int | None = None
    ecg_bytes: float | None = None
    network_gbit: float | None = None
    latency_us: float | None = None
    storage_gbit: float | None = None
    price_per_gpu_hour: float | None = None

    def of(self, config: PretrainConfig) -> tuple[RunLayout, Circumstances]:
        """What to estimate.

        Raises:
            ConfigError: for values that exclude each other or are missing.
            DataError, StorageError: if the corpus cannot be read.
        """
        self._check(config)
        layout = (
            RunLayout.of_corpus(config)
            if self.rows is None
            else RunLayout.of_rows(config, self.rows, self.ecg_bytes)
        )
        return layout, Circumstances(
            rate=self._rate(layout),
            stream=self._stream(layout),
            network=self._network(),
            storage_bytes_per_s=None if self.storage_gbit is None else self.storage_gbit * 1e9 / 8,
            price_per_gpu_hour=self.price_per_gpu_hour,
        )

    def _check(self, config: PretrainConfig) -> None:
        ways = {"--rate": self.rate is not None, "--measure": self.measure, "--mfu": self.mfu is not None}
        if sum(ways.values()) > 1:
            raise ConfigError(
                f"{' and '.join(n for n, given in ways.items() if given)} say the same thing; give one"
            )
        if self.rate is not None and self.rate <= 0:
            raise ConfigError(f"--rate {self.rate:g} is not a number of ECG/s above 0")
        if self.stream_rate is not None and self.stream_rate <= 0:
            raise ConfigError(f"--stream-rate {self.stream_rate:g} is not a number of ECG/s above 0")
        if self.gpu is None and config.workers.accelerator == "gpu":
            raise ConfigError("workers.accelerator = gpu: name the kind of GPU, e.g. --gpu H100")
        if self.gpu is not None and self.measure:
            raise ConfigError("--measure measures a core of this machine; leave --gpu out, or give a --rate")
        if self.gpu is None and self.mfu is not None:
            raise ConfigError("--mfu is a share of a GPU's peak; name the kind of GPU, e.g. --gpu H100")
        if self.ecg_bytes is not None and self.rows is None:
            raise ConfigError("--ecg-bytes goes with --rows; of a corpus that is there, they are known")

    def _rate(self, layout: RunLayout) -> Rate:
        kind = self.gpu or CPU_CORE
        if self.rate is not None:
            return Rate(kind=kind, ecg_per_s=self.rate, basis="given", source="--rate")
        if self.measure:
            stage = 0 if layout.config.engine.precision == "fp32" else 1
            return measure_training(with_stage(layout.config, stage), layout.preprocessing).rate()
        return choose_rate(layout.config, layout.window_samples, kind, mfu=self.mfu)

    def _stream(self, layout: RunLayout) -> StreamRate:
        is_s3 = self.rows is None and Location.of(layout.config.corpus).is_s3
        if self.stream_rate is not None:
            return StreamRate(
                storage="s3" if is_s3 else "local", ecg_per_s=self.stream_rate, source="--stream-rate"
            )
        return stream_rate("s3" if is_s3 else "local")

    def _network(self) -> Network:
        network = Network()
        if self.network_gbit is not None:
            network = replace(network, bytes_per_s=self.network_gbit * 1e9 / 8)
        if self.latency_us is not None:
            network = replace(network, latency_s=self.latency_us / 1e6)
        given = [
            n
            for n, v in (("--network-gbit", self.network_gbit), ("--latency-us", self.latency_us))
            if v is not None
        ]
        missing = [n for n in ("--network-gbit", "--latency-us") if n not in given]
        source = "given" if not missing else f"{', '.join(missing)} assumed"
        return replace(network, source=source)
