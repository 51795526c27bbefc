# Of what callgrind wrote (--demangle=no): instructions in each node of the packet graph, with all that it calls, and
# "total". Names of compiled functions do not say of which node they are, so a node is known by the file in src/nodes
# that most of it comes from.

# "(12) text" says what 12 stands for from now on; "(12)" alone is that.
function known(text, names,    end) {
  end = index(text, ")")
  if (length(text) > end) names[substr(text, 1, end)] = substr(text, end + 2)
  return substr(text, 1, end)
}

# The file in src/nodes that a path, or the name of a compiled function, is of.
function room(text,    length_of) {
  if (match(text, /dataplane\/src\/nodes\/[a-z_0-9]+\.rs/)) text = substr(text, RSTART + 20, RLENGTH - 23)
  else if (match(text, /margay_dataplane\.\.nodes\.\.[a-z_0-9]+/)) text = substr(text, RSTART + 25, RLENGTH - 25)
  else if (match(text, /16margay_dataplane5nodes[0-9]+/)) {
    length_of = substr(text, RSTART + 24, RLENGTH - 24)
    text = substr(text, RSTART + RLENGTH, length_of + 0)
  } else return ""
  # What several nodes share.
  if (text ~ /^(mod|world|counters|event|watch|host|nat|quota)$/) return ""
  # The usual headers, which parse reads by itself.
  return text == "plain" ? "parse" : text
}

/^fn=/ { current = known(substr($0, 4), functions); next }
/^f[lie]=/ { file = known(substr($0, 4), files); next }
/^cf[il]=/ { known(substr($0, 5), files); next }
/^cfn=/ { callee = known(substr($0, 5), functions); next }
/^calls=/ { called = 1; next }
/^summary:/ { printf "total %d\n", $2; next }
/^[-+*0-9]/ {
  cost[current] += $2
  if (called) through[current, "function", callee] += $2
  else through[current, "file", file] += $2
  called = 0
}

END {
  for (pair in through) {
    split(pair, part, SUBSEP)
    name = part[2] == "file" ? room(files[part[3]]) : room(functions[part[3]])
    if (name != "") weight[part[1], name] += through[pair]
  }
  for (pair in weight) {
    split(pair, part, SUBSEP)
    if (weight[pair] > most[part[1]]) { most[part[1]] = weight[pair]; node[part[1]] = part[2] }
  }
  for (run in cost) {
    if (functions[run] !~ /graph\.\.node\.\.(Judge|End).*3run17h/) continue
    of[run in node ? node[run] : "others"] += cost[run]
  }
  for (name in of) printf "%s %d\n", name, of[name]
}
