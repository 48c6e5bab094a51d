// The least that a sink of Kafka Connect for S3 can do: values as lines in a buffer for each partition, an object when that is
// full or when offsets are committed. Nothing is parsed or compressed. A floor for any such sink; no published product.
package peer;

import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.sink.SinkConnector;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.checksums.RequestChecksumCalculation;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;

public class LinesSink extends SinkConnector {
  private Map<String, String> config;

  @Override public void start(Map<String, String> given) { config = given; }
  @Override public void stop() {}
  @Override public String version() { return "1"; }
  @Override public Class<? extends Task> taskClass() { return Lines.class; }
  @Override public List<Map<String, String>> taskConfigs(int tasks) { return Collections.nCopies(tasks, config); }
  @Override public ConfigDef config() {
    ConfigDef options = new ConfigDef();
    for (String name : List.of("s3.url", "s3.bucket", "s3.prefix", "s3.key", "s3.secret", "max.records"))
      options.define(name, ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, name);
    return options;
  }

  public static class Lines extends SinkTask {
    private static final class Buffer {
      long first;
      int records;
      final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1 << 20);
    }

    private final Map<TopicPartition, Buffer> buffers = new HashMap<>();
    private final Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
    private S3Client s3;
    private String bucket, prefix;
    private int most;

    @Override public String version() { return "1"; }

    @Override public void start(Map<String, String> config) {
      bucket = config.get("s3.bucket");
      prefix = config.get("s3.prefix");
      most = Integer.parseInt(config.get("max.records"));
      AwsBasicCredentials key = AwsBasicCredentials.create(config.get("s3.key"), config.get("s3.secret"));
      s3 = S3Client.builder().endpointOverride(URI.create(config.get("s3.url"))).forcePathStyle(true).region(Region.US_EAST_1)
          .requestChecksumCalculation(RequestChecksumCalculation.WHEN_REQUIRED)
          .httpClientBuilder(UrlConnectionHttpClient.builder()).credentialsProvider(StaticCredentialsProvider.create(key)).build();
    }

    @Override public void put(Collection<SinkRecord> records) {
      for (SinkRecord record : records) {
        TopicPartition partition = new TopicPartition(record.topic(), record.kafkaPartition());
        read.put(partition, new OffsetAndMetadata(record.kafkaOffset() + 1));
        if (record.value() == null) continue; // the beginning or the end of a session, or the turn of an hour
        Buffer buffer = buffers.computeIfAbsent(partition, any -> new Buffer());
        if (buffer.records++ == 0) buffer.first = record.kafkaOffset();
        buffer.bytes.writeBytes((byte[]) record.value());
        buffer.bytes.write('\n');
        if (buffer.records >= most) upload(partition);
      }
    }

    private void upload(TopicPartition partition) {
      Buffer buffer = buffers.remove(partition);
      String key = String.format("%s/%d/%020d.jsonl", prefix, partition.partition(), buffer.first);
      s3.putObject(request -> request.bucket(bucket).key(key), RequestBody.fromBytes(buffer.bytes.toByteArray()));
    }

    @Override public Map<TopicPartition, OffsetAndMetadata> preCommit(Map<TopicPartition, OffsetAndMetadata> now) {
      try {
        for (TopicPartition partition : new ArrayList<>(buffers.keySet())) upload(partition);
      } catch (RuntimeException failure) { // Connect goes back to what was committed last: so does this
        buffers.clear();
        read.clear();
        throw new ConnectException(failure);
      }
      return new HashMap<>(read);
    }

    @Override public void close(Collection<TopicPartition> partitions) { buffers.clear(); }
    @Override public void stop() { if (s3 != null) s3.close(); }
  }
}
