{# The rules of the seed trade_rules, in their order. Changed rules judge all trades anew: refiner/origin.py. #}
{% macro trade_rules() %}
  {%- set seed = ref('trade_rules') -%}
  {%- set known = ['time_missing', 'time_out_of_range', 'symbol_missing', 'symbol_unknown', 'price_missing', 'size_missing',
                   'price_not_positive', 'size_negative', 'amount_out_of_range', 'price_out_of_band'] -%}
  {%- set rules = {} -%}
  {%- if execute -%}
    {%- for row in run_query("select rule, enabled, low, high from " ~ seed ~ " order by priority, rule").rows -%}
      {%- do rules.update({row[0]: {'enabled': row[1], 'low': row[2], 'high': row[3]}}) -%}
    {%- endfor -%}
    {%- if rules | sort != known | sort -%}
      {%- do exceptions.raise_compiler_error("seed trade_rules: it must have each of " ~ known | join(', ') ~ " and no other; switch a rule off with enabled = false") -%}
    {%- endif -%}
  {%- endif -%}
  {{ return(rules) }}
{% endmacro %}

{# The business rule of a record alone that rejects it; null for none. The first that is broken counts. What the
   warehouse cannot hold (a null, a year that no calendar takes, an amount of which a minute's sum would overflow) is
   rejected whatever the seed says: there a rule can be made stricter, and not be switched off. #}
{% macro rejected_rule() -%}
  {%- set always = {
    'time_missing': "event_time is null",
    'time_out_of_range': "event_time < '1970-01-01 00:00:00+00'::timestamptz or event_time >= '2200-01-01 00:00:00+00'::timestamptz",
    'symbol_missing': "coalesce(symbol, '') = ''",
    'price_missing': "price is null",
    'size_missing': "size is null",
    'price_not_positive': "price <= 0 and not coalesce(price_update, false)",
    'size_negative': "size < 0",
    'amount_out_of_range': amount('price', 'size') ~ " >= cast('1e16' as decimal(38, 16))",
  } -%}
  {%- set rules = trade_rules() -%}
  case
  {%- for rule, row in rules.items() if rule != 'price_out_of_band' %}
    {%- set conditions = [always[rule]] if rule in always else [] -%}
    {%- if row.enabled %}{% do conditions.extend(conditions_of(rule, row)) %}{% endif -%}
    {%- if conditions %}
    when {{ conditions | join(' or ') }} then '{{ rule }}'
    {%- endif -%}
  {%- endfor %}
    when false then ''
  end
{%- endmacro %}

{# What a rule's row in the seed, or a variable, rejects beyond that. #}
{% macro conditions_of(rule, row) %}
  {%- if rule == 'time_out_of_range' -%}
    {{ return(["event_time < '" ~ date_of(rule, 'low', row.low) ~ " 00:00:00+00'::timestamptz",
               "event_time >= '" ~ date_of(rule, 'high', row.high) ~ " 00:00:00+00'::timestamptz"]) }}
  {%- elif rule == 'symbol_unknown' and var('known_symbols') -%}
    {%- set names = [] -%}
    {%- for name in var('known_symbols') -%}{%- do names.append("'" ~ name | replace("'", "''") ~ "'") -%}{%- endfor -%}
    {{ return(["symbol not in (" ~ names | join(', ') ~ ")"]) }}
  {%- elif rule == 'price_not_positive' -%}
    {{ return(["price <= " ~ number_of(rule, 'low', row.low) ~ " and not coalesce(price_update, false)"]) }}
  {%- elif rule == 'size_negative' -%}
    {{ return(["size < " ~ number_of(rule, 'low', row.low) ~ " and not coalesce(price_update, false)"]) }}
  {%- elif rule == 'amount_out_of_range' -%}
    {{ return([amount('price', 'size') ~ " >= " ~ number_of(rule, 'high', row.high)]) }}
  {%- endif -%}
  {{ return([]) }}
{% endmacro %}

{% macro number_of(rule, column, value, most=1e16) %}
  {%- if not modules.re.fullmatch('[0-9]+(\\.[0-9]+)?([eE][0-9]{1,2})?', value or '') or value | float > most -%}
    {%- do exceptions.raise_compiler_error("seed trade_rules: " ~ column ~ " of " ~ rule ~ " is '" ~ (value or '') ~ "', must be a number from 0 to " ~ most) -%}
  {%- endif -%}
  {{ return("cast('" ~ value ~ "' as decimal(38, 16))") }}
{% endmacro %}

{% macro date_of(rule, column, value) %}
  {%- if not modules.re.fullmatch('[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])', value or '') -%}
    {%- do exceptions.raise_compiler_error("seed trade_rules: " ~ column ~ " of " ~ rule ~ " is '" ~ (value or '') ~ "', must be a date, as 1970-01-01") -%}
  {%- endif -%}
  {{ return(value) }}
{% endmacro %}

{# A trade that the rules on the record alone let through, and that is no price update: it is held against the price
   band, and later trades are held against it. #}
{% macro has_a_price_to_judge() %}{{ rejected_rule() }} is null and not price_update{% endmacro %}

{# Whether a price lies outside of the band about the reference; null without a reference. #}
{% macro out_of_band(price, reference) -%}
  {%- set band = trade_rules().get('price_out_of_band', {'enabled': false}) -%}
  {%- if band.enabled -%}
    {%- do number_of('price_out_of_band', 'high', band.high, 1000) -%}
    {%- set factor = "(1 + cast('" ~ band.high ~ "' as decimal(12, 8)))" -%}
    ({{ price }} > {{ amount(reference, factor) }} or {{ amount(price, factor) }} < {{ reference }})
  {%- else -%}
    false
  {%- endif -%}
{%- endmacro %}
