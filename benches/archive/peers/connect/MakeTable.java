// Makes the table that Iceberg's sink writes to. The sink could do that too, but would take the type of the sizes from the first
// one, which has no fraction. Prices and sizes are doubles, as JSON's converter reads them: cheaper than our decimals.
import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.iceberg.PartitionSpec;
import org.apache.iceberg.Schema;
import org.apache.iceberg.catalog.Namespace;
import org.apache.iceberg.catalog.TableIdentifier;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.types.Types;
import org.apache.iceberg.types.Types.NestedField;

public class MakeTable {
  /** The column by whose values the table is partitioned, or nothing, then the options of the catalog, each as name=value. */
  public static void main(String[] arguments) throws Exception {
    String column = arguments[0];
    String[] options = Arrays.copyOfRange(arguments, 1, arguments.length);
    Map<String, String> catalog = new TreeMap<>();
    for (String option : options) catalog.put(option.split("=", 2)[0], option.split("=", 2)[1]);
    Schema schema = new Schema(
        NestedField.optional(1, "s", Types.StringType.get()), NestedField.optional(2, "p", Types.DoubleType.get()),
        NestedField.optional(3, "v", Types.DoubleType.get()), NestedField.optional(4, "t", Types.LongType.get()),
        NestedField.optional(5, "c", Types.ListType.ofOptional(6, Types.StringType.get())));
    PartitionSpec.Builder parts = PartitionSpec.builderFor(schema);
    PartitionSpec spec = column.isEmpty() ? parts.build() : parts.identity(column).build();
    try (JdbcCatalog made = new JdbcCatalog()) {
      made.initialize("iceberg", catalog);
      made.createNamespace(Namespace.of("bronze"));
      made.buildTable(TableIdentifier.of("bronze", "trades"), schema)
          .withPartitionSpec(spec).withProperty("write.parquet.compression-codec", "zstd")
          .withProperty("write.parquet.compression-level", "3").create();
    }
  }
}
