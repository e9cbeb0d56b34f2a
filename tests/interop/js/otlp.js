// Sends the same log records to a log twice by OTLP/HTTP as JSON, as they are and packed: node otlp.js URL
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const attributes = {
  "user.name": "ann",
  amount: 2.5,
  big: 2 ** 60,
  bytes: new Uint8Array([1, 2, 255]),
  endless: -Infinity,
  list: [true, "é", 7],
};
for (const compression of ["none", "gzip"]) {
  const exporter = new OTLPLogExporter({ url: `${process.argv[2]}/v1/logs`, compression });
  const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter })] });
  const logger = provider.getLogger(compression, "1");
  for (const body of ["paid", "cut off here \ud83d", "refunded"]) {
    logger.emit({ attributes, body, eventName: "refund", severityNumber: 9 });
  }
  await provider.shutdown();
}
