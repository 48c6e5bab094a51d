{# The rules of the seed signal_rules. Both the rule and its version are named by each signal; a changed rule is a new
   version, and an old one may stay beside it. #}
{% macro signal_rules() %}
  {%- set seed, rules = ref('signal_rules'), [] -%}
  {%- if execute -%}
    {%- for row in run_query("select rule, version, kind, value, level, bars, threshold from " ~ seed ~ " order by rule, version").rows -%}
      {%- set rule = {'rule': row[0], 'version': row[1] | int, 'kind': row[2], 'value': row[3], 'level': row[4],
                      'bars': row[5] | int if row[5] is not none else none, 'threshold': row[6]} -%}
      {%- do check_signal_rule(rule) -%}
      {%- do rules.append(rule) -%}
    {%- endfor -%}
  {%- endif -%}
  {{ return(rules) }}
{% endmacro %}

{% macro check_signal_rule(rule) %}
  {%- set columns = ['close', 'sma_5', 'sma_20', 'sma_50', 'ema_5', 'ema_20', 'ema_50', 'wma_5', 'wma_20', 'wma_50', 'bb_upper', 'bb_middle', 'bb_lower',
                     'macd', 'macd_signal', 'vwap_session', 'vwap_20'] -%}
  {%- set trouble = [] -%}
  {%- if rule.kind == 'cross' -%}
    {%- for field in ['value', 'level'] if rule[field] not in columns -%}
      {%- do trouble.append(field ~ " is '" ~ (rule[field] or '') ~ "', must be one of " ~ columns | join(', ')) -%}
    {%- endfor -%}
  {%- elif rule.kind == 'breakout' or rule.kind == 'volume' and not rule.value -%}
    {%- if not (rule.bars and 2 <= rule.bars <= 200) -%}{%- do trouble.append("bars is '" ~ rule.bars ~ "', must be 2 to 200") -%}{%- endif -%}
  {%- elif rule.kind == 'volume' -%}
    {%- if rule.value != 'relative_volume' -%}{%- do trouble.append("value is '" ~ rule.value ~ "', must be relative_volume or empty") -%}{%- endif -%}
  {%- else -%}
    {%- do trouble.append("kind is '" ~ rule.kind ~ "', must be cross, breakout or volume") -%}
  {%- endif -%}
  {%- if rule.kind == 'volume' and not (rule.threshold is not none and rule.threshold | float > 0) -%}
    {%- do trouble.append("threshold is '" ~ rule.threshold ~ "', must be a number above 0") -%}
  {%- endif -%}
  {%- if not modules.re.fullmatch('[a-z0-9_]+', rule.rule or '') -%}{%- do trouble.append("rule must be of a-z, 0-9 and _") -%}{%- endif -%}
  {%- if trouble -%}
    {%- do exceptions.raise_compiler_error("seed signal_rules: " ~ rule.rule ~ " version " ~ rule.version ~ ": " ~ trouble | join('; ')) -%}
  {%- endif -%}
{% endmacro %}

{# What a rule looks back for, the rule's number in the names: of all rules together, for a pass over the bars is what
   they cost. Gives nothing for a rule that does not look back. #}
{% macro looks_back(rule, n) -%}
  {%- set before = "over (partition by " ~ series() ~ " order by place rows between " ~ (rule.bars or 1) ~ " preceding and 1 preceding)" -%}
  {%- set earlier = "lag(%s) over (partition by " ~ series() ~ " order by place)" -%}
  {%- set full = "case when count(*) " ~ before ~ " = " ~ rule.bars ~ " then %s " ~ before ~ " end" -%}
  {%- if rule.kind == 'cross' -%}
    , {{ earlier | format(rule.value) }} as value_before_{{ n }}, {{ earlier | format(rule.level) }} as level_before_{{ n }}
  {%- elif rule.kind == 'breakout' -%}
    , {{ full | format('max(high)') }} as highest_{{ n }}, {{ full | format('min(low)') }} as lowest_{{ n }}
  {%- elif not rule.value -%}
    , {{ full | format('avg(volume)') }} as usual_{{ n }}
  {%- endif -%}
{%- endmacro %}

{# What a rule says of each row of `looked_back`: the value that it looks at, the level that it holds it against, and, where
   it fires, which way. #}
{% macro judged_by(rule, n) -%}
  {%- set nearly, none_before = "1e-12 * cast(price as double)", "cast(null as double)" -%}
  {%- if rule.kind == 'cross' -%}
    {%- set inputs, value, level = rule.value ~ ', ' ~ rule.level, rule.value, rule.level -%}
    {%- set value_before, level_before = 'value_before_' ~ n, 'level_before_' ~ n -%}
    {%- set buy = "value - level > " ~ nearly ~ " and value_before - level_before <= " ~ nearly -%}
    {%- set sell = "level - value > " ~ nearly ~ " and level_before - value_before <= " ~ nearly -%}
    {%- set watch = 'false' -%}
  {%- elif rule.kind == 'breakout' -%}
    {%- set inputs, value = 'close, high and low of ' ~ rule.bars ~ ' bars', 'close' -%}
    {%- set level = "case when close < lowest_" ~ n ~ " then lowest_" ~ n ~ " else highest_" ~ n ~ " end" -%}
    {%- set value_before, level_before = none_before, none_before -%}
    {%- set buy, sell, watch = "value > level", "close < lowest_" ~ n, 'false' -%}
  {%- else -%}
    {%- set inputs = rule.value or 'volume, mean volume of ' ~ rule.bars ~ ' bars' -%}
    {%- set value = rule.value or "volume / nullif(usual_" ~ n ~ ", 0)" -%}
    {%- set level, value_before, level_before = "cast(" ~ rule.threshold ~ " as double)", none_before, none_before -%}
    {%- set buy, sell, watch = 'false', 'false', "value >= level * (1 - 1e-12)" -%}
  {%- endif -%}
  select
    '{{ rule.rule }}' as rule, {{ rule.version }} as version, '{{ inputs }}' as inputs, {{ series() }}, bucket_start, price,
    value, level, value_before, level_before,
    case when {{ buy }} then 'buy' when {{ sell }} then 'sell' when {{ watch }} then 'watch' end as direction
  from (
    select
      *, {{ value }} as value, {{ level }} as level, {{ value_before }} as value_before, {{ level_before }} as level_before
    from looked_back
    where is_new
  ) r
{%- endmacro %}
