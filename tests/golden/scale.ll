; ModuleID = "kernel"
target triple = "unknown-unknown-unknown"
target datalayout = ""

define void @"kernel"(ptr noalias %"args", ptr noalias %"scratch")
{
entry:
  %".4" = getelementptr i64, ptr %"args", i64 0
  %".5" = load i64, ptr %".4", align 8
  %"x.address" = inttoptr i64 %".5" to ptr
  %".6" = getelementptr i64, ptr %"args", i64 1
  %".7" = load i64, ptr %".6", align 8
  %".8" = getelementptr i64, ptr %"args", i64 2
  %".9" = load i64, ptr %".8", align 8
  %".10" = getelementptr i64, ptr %"args", i64 5
  %".11" = load i64, ptr %".10", align 8
  %"out.address" = inttoptr i64 %".11" to ptr
  %".12" = getelementptr i64, ptr %"args", i64 6
  %".13" = load i64, ptr %".12", align 8
  %".14" = getelementptr i64, ptr %"args", i64 7
  %".15" = load i64, ptr %".14", align 8
  %".16" = getelementptr i64, ptr %"args", i64 10
  %".17" = load i64, ptr %".16", align 8
  %".18" = trunc i64 %".17" to i16
  %".19" = bitcast i16 %".18" to half
  %".20" = fpext half %".19" to float
  %".21" = icmp ne i64 %".9", 2
  %".22" = ptrtoint ptr %"x.address" to i64
  %".23" = add i64 %".22", 2
  %".24" = sub i64 2, 1
  %".25" = mul i64 %".7", %".24"
  %".26" = icmp slt i64 %".25", 0
  %".27" = select  i1 %".26", i64 %".25", i64 0
  %".28" = add i64 %".22", %".27"
  %".29" = select  i1 %".26", i64 0, i64 %".25"
  %".30" = add i64 %".23", %".29"
  %".31" = sub i64 20, 1
  %".32" = mul i64 %".9", %".31"
  %".33" = icmp slt i64 %".32", 0
  %".34" = select  i1 %".33", i64 %".32", i64 0
  %".35" = add i64 %".28", %".34"
  %".36" = select  i1 %".33", i64 0, i64 %".32"
  %".37" = add i64 %".30", %".36"
  %".38" = ptrtoint ptr %"out.address" to i64
  %".39" = add i64 %".38", 2
  %".40" = sub i64 2, 1
  %".41" = mul i64 %".13", %".40"
  %".42" = icmp slt i64 %".41", 0
  %".43" = select  i1 %".42", i64 %".41", i64 0
  %".44" = add i64 %".38", %".43"
  %".45" = select  i1 %".42", i64 0, i64 %".41"
  %".46" = add i64 %".39", %".45"
  %".47" = sub i64 20, 1
  %".48" = mul i64 %".15", %".47"
  %".49" = icmp slt i64 %".48", 0
  %".50" = select  i1 %".49", i64 %".48", i64 0
  %".51" = add i64 %".44", %".50"
  %".52" = select  i1 %".49", i64 0, i64 %".48"
  %".53" = add i64 %".46", %".52"
  %".54" = icmp ult i64 %".35", %".53"
  %".55" = icmp ult i64 %".51", %".37"
  %".56" = and i1 %".54", %".55"
  %".57" = icmp eq ptr %"x.address", %"out.address"
  %".58" = icmp eq i64 %".7", %".13"
  %".59" = and i1 %".57", %".58"
  %".60" = icmp eq i64 %".9", %".15"
  %".61" = and i1 %".59", %".60"
  %".62" = xor i1 %".61", -1
  %".63" = and i1 %".56", %".62"
  %".64" = or i1 %".21", %".63"
  %".65" = getelementptr i8, ptr %"scratch", i64 0
  br i1 %".64", label %"entry.if", label %"entry.endif", !prof !0
entry.if:
  call void @"copy_2"(ptr %".65", i64 40, i64 2, ptr %"x.address", i64 %".7", i64 %".9", i64 2, i64 20)
  br label %"entry.endif"
entry.endif:
  %".69" = select  i1 %".64", ptr %".65", ptr %"x.address"
  %".70" = select  i1 %".64", i64 40, i64 %".7"
  %".71" = select  i1 %".64", i64 2, i64 %".9"
  %".72" = icmp ne i64 %".15", 2
  %".73" = getelementptr i8, ptr %"scratch", i64 192
  %".74" = select  i1 %".72", ptr %".73", ptr %"out.address"
  %".75" = select  i1 %".72", i64 40, i64 %".13"
  %".76" = select  i1 %".72", i64 2, i64 %".15"
  br label %"loop"
loop:
  %".78" = phi  i64 [0, %"entry.endif"], [%".127", %"done.1"]
  %".79" = icmp slt i64 %".78", 2
  br i1 %".79", label %"body", label %"done"
body:
  br label %"loop.1"
done:
  br i1 %".72", label %"done.if", label %"done.endif", !prof !0
loop.1:
  %".82" = phi  i64 [0, %"body"], [%".104", %"body.1"]
  %".83" = icmp slt i64 %".82", 16
  br i1 %".83", label %"body.1", label %"done.1"
body.1:
  %".85" = mul i64 %".78", %".70"
  %".86" = getelementptr i8, ptr %".69", i64 %".85"
  %".87" = getelementptr i16, ptr %".86", i64 %".82"
  %".88" = load <16 x i16>, ptr %".87", align 2
  %".89" = bitcast <16 x i16> %".88" to <16 x half>
  %".90" = fpext <16 x half> %".89" to <16 x float>
  %".91" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %".20", i32 0
  %".92" = shufflevector <16 x float> %".91", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %".93" = fmul <16 x float> %".90", %".92"
  %".94" = fptrunc <16 x float> %".93" to <16 x half>
  %".95" = bitcast <16 x half> %".94" to <16 x i16>
  %".96" = bitcast <16 x i16> %".95" to <16 x half>
  %".97" = fpext <16 x half> %".96" to <16 x float>
  %".98" = mul i64 %".78", %".75"
  %".99" = getelementptr i8, ptr %".74", i64 %".98"
  %".100" = getelementptr i16, ptr %".99", i64 %".82"
  %".101" = fptrunc <16 x float> %".97" to <16 x half>
  %".102" = bitcast <16 x half> %".101" to <16 x i16>
  store <16 x i16> %".102", ptr %".100", align 2
  %".104" = add nsw nuw i64 %".82", 16
  br label %"loop.1"
done.1:
  %".106" = mul i64 %".78", %".70"
  %".107" = getelementptr i8, ptr %".69", i64 %".106"
  %".108" = getelementptr i16, ptr %".107", i64 16
  %".109" = call <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".108", i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> <i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0, i16 0>)
  %".110" = bitcast <16 x i16> %".109" to <16 x half>
  %".111" = fpext <16 x half> %".110" to <16 x float>
  %".112" = insertelement <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, float %".20", i32 0
  %".113" = shufflevector <16 x float> %".112", <16 x float> <float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef, float undef>, <16 x i32> <i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0, i32 0>
  %".114" = fmul <16 x float> %".111", %".113"
  %".115" = fptrunc <16 x float> %".114" to <16 x half>
  %".116" = bitcast <16 x half> %".115" to <16 x i16>
  %".117" = bitcast <16 x i16> %".116" to <16 x half>
  %".118" = fpext <16 x half> %".117" to <16 x float>
  %".119" = mul i64 %".78", %".75"
  %".120" = getelementptr i8, ptr %".74", i64 %".119"
  %".121" = getelementptr i16, ptr %".120", i64 16
  %".122" = fptrunc <16 x float> %".118" to <16 x half>
  %".123" = bitcast <16 x half> %".122" to <16 x i16>
  %".124" = getelementptr i16, ptr %".121", i64 0
  %".125" = shufflevector <16 x i16> %".123", <16 x i16> %".123", <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %".125", ptr %".124", align 2
  %".127" = add nsw nuw i64 %".78", 1
  br label %"loop"
done.if:
  %".130" = getelementptr i8, ptr %"scratch", i64 192
  call void @"copy_2"(ptr %"out.address", i64 %".13", i64 %".15", ptr %".130", i64 40, i64 2, i64 2, i64 20)
  br label %"done.endif"
done.endif:
  ret void
}

define internal void @"copy_2"(ptr %".1", i64 %".2", i64 %".3", ptr %".4", i64 %".5", i64 %".6", i64 %".7", i64 %".8") noinline
{
entry:
  br label %"loop"
loop:
  %".11" = phi  i64 [0, %"entry"], [%".30", %"done.1"]
  %".12" = icmp slt i64 %".11", %".7"
  br i1 %".12", label %"body", label %"done"
body:
  br label %"loop.1"
done:
  ret void
loop.1:
  %".15" = phi  i64 [0, %"body"], [%".28", %"body.1"]
  %".16" = icmp slt i64 %".15", %".8"
  br i1 %".16", label %"body.1", label %"done.1"
body.1:
  %".18" = mul i64 %".11", %".5"
  %".19" = mul i64 %".15", %".6"
  %".20" = add i64 %".18", %".19"
  %".21" = getelementptr i8, ptr %".4", i64 %".20"
  %".22" = mul i64 %".11", %".2"
  %".23" = mul i64 %".15", %".3"
  %".24" = add i64 %".22", %".23"
  %".25" = getelementptr i8, ptr %".1", i64 %".24"
  %".26" = load i16, ptr %".21", align 2
  store i16 %".26", ptr %".25", align 2
  %".28" = add nsw nuw i64 %".15", 1
  br label %"loop.1"
done.1:
  %".30" = add nsw nuw i64 %".11", 1
  br label %"loop"
}

declare <16 x i16> @"llvm.masked.load.v16i16.p0"(ptr %".1", i32 %".2", <16 x i1> %".3", <16 x i16> %".4")

!0 = !{ !"branch_weights", i32 1, i32 99 }
define i64 @"kernel.scratch"() {
  ret i64 512
}
